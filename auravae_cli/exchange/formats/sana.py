"""SANA's tars with a wids index: ``KEY.npy``, ``KEY.json`` with ``prompt``, and ``wids-meta.json``.

Rules: NVlabs/Sana, diffusion/data/datasets/sana_data.py at aa1b69a9 (``load_vae_feat``), and wids 0.1.11.
The index names the tars and counts their samples, which are read at random. npy has no bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from auravae_cli.exchange.formats import webdataset
from auravae_cli.exchange.formats.base import Choices, Exported, Foreign, Found, Listing, notes_of
from auravae_cli.latents.latent_file import LatentFile

VALUES, NOTES, PROMPT = ".npy", ".json", "prompt"


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one tar of a stack."""
    name = f"{number:06d}.tar"
    entry = {"url": name, "nsamples": len(names)}
    yield Exported(name, lambda: webdataset.tar_of(names, _samples(latents)), entry)


def _samples(latents: LatentFile) -> Iterator[list[webdataset.Member]]:
    captions = [str(record.annotations.get("caption", "")) for record in latents.records]
    for row, note in enumerate(notes_of(latents, **{PROMPT: captions})):
        yield [(VALUES, webdataset.npy_of(latents.row(row))), (NOTES, [note.encode()])]


def read(file: Foreign) -> Iterator[Found]:
    """Yield every sample that has a latent; the prompt is the caption."""
    yield from webdataset.read(file, PROMPT)


def _index(tars: list[Any]) -> bytes:
    """Return ``wids-meta.json``: the tars, and how many samples each has."""
    kind = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "latents"}
    return json.dumps(kind | {"shardlist": tars}, indent=1).encode()


FORMAT = replace(
    webdataset.FORMAT,
    name="sana",
    rules="NVlabs/Sana, diffusion/data/datasets/sana_data.py at aa1b69a9, and wids",
    write=write,
    read=read,
    keeps=webdataset.FORMAT.keeps - {"label"},
    index=lambda: Listing("wids-meta.json", _index),
    advice="for `load_vae_feat`; a latent without a caption has an empty prompt",
)
