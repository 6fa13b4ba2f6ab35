"""ComfyUI's ``.latent``: safetensors with ``latent_tensor`` [B, C, h, w], values unscaled.

Rules: comfyanonymous/ComfyUI, nodes.py (SaveLatent, LoadLatent) at a125cd84. LoadLatent multiplies
by 1 / 0.18215 if the empty tensor ``latent_format_version_0`` is missing; it ignores everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    each,
    known,
    note_of,
    tensor,
    widened,
    without_frame,
)
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import FLOAT32
from auravae_cli.latents.latent_file import LatentFile

VALUES, UNSCALED = "latent_tensor", "latent_format_version_0"
_OLD_SCALE = np.float32(0.18215)


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file, as SaveLatent writes it, but with our metadata instead of a workflow's."""
    values = widened(latents)[None]
    entries = {VALUES: (FLOAT32, values.shape), UNSCALED: (FLOAT32, (0,))}
    header = safetensors_file.header_bytes(entries, {NOTE: note_of(latents)})
    yield Exported(f"{names[0]}.latent", lambda: [header, values.data])


def read(file: Foreign) -> Iterator[Found]:
    """Yield the latents of a batch, scaled like LoadLatent does."""
    tensors, metadata = safetensors_file.parse(file.content, any_dtype=True)
    values = tensor(tensors, VALUES)
    values = replace(values, values=without_frame(values.values, 5))
    if values.values.ndim != 4:
        raise LatentFileError(
            f"{VALUES} has shape {list(values.values.shape)}: expected [B, C, h, w], a picture's"
        )
    ignored = tuple(name for name in tensors if name not in (VALUES, UNSCALED))
    found = Found(file.stem, values.values, values.dtype, ignored=ignored)
    if UNSCALED not in tensors:
        wide = values.dtype.to_float32(values.values) / _OLD_SCALE
        yield from each(replace(found, values=wide, dtype=FLOAT32))
        return
    note = metadata.get(NOTE) if len(values.values) == 1 else None
    latent = known(values.values[0], values.dtype, note) if note else None
    yield from each(replace(found, known=latent))


FORMAT = Format(
    name="comfyui",
    rules="ComfyUI, nodes.py (SaveLatent, LoadLatent) at a125cd84",
    suffixes=frozenset((".latent",)),
    write=write,
    read=read,
    note="the safetensors metadata key 'auravae'",
    advice="LoadLatent lists files directly in ComfyUI's input folder only; its LatentFlip node is "
    "wrong for these latents: flip with auravae",
)
