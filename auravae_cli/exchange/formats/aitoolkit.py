"""ai-toolkit's latent caches: ``_latent_cache/STEM_HASH.safetensors`` with ``latent`` [C, h, w].

Rules: ostris/ai-toolkit, toolkit/dataloader_mixins.py (get_latent_info_dict, get_latent_path,
cache_latents_all_latents; the same at 515d75ae). A file is looked up by the hash of the picture's
preparation. There, a flipped picture is a separate item with ``flip_x``, and so has its own file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    known,
    note_of,
    shown_box,
    source_name,
    tensor,
)
from auravae_cli.files.canonical_json import read_json
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.symmetry.group import GroupElement, H
from auravae_cli.version import __version__

FOLDER, LATENT_VERSION = "_latent_cache", 1
COPY = "flipped_copy"  # in our metadata: the flip by which this file is the copy of another
_HASH = re.compile(r"(.+)_[A-Za-z0-9_-]{22}")


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file, and another one for the flipped picture."""
    yield _file(latents, names[0], choices.arch, note_of(latents))
    if choices.flipped:
        flipped = latents.act(H)
        yield _file(flipped, names[0], choices.arch, note_of(flipped, **{COPY: str(H)}))


def info_of(latents: LatentFile, name: str, arch: str) -> dict[str, object]:
    """Return what ai-toolkit hashes: the file, its resizing and cropping, flips, and the network."""
    width, height, left, top, right, bottom = shown_box(latents)
    orientation = latents.records[0].orientation
    info: dict[str, object] = {
        "filename": source_name(latents, name),
        "scale_to_width": width,
        "scale_to_height": height,
        "crop_x": left,
        "crop_y": top,
        "crop_width": right - left,
        "crop_height": bottom - top,
        "latent_space_version": arch,
        "latent_version": LATENT_VERSION,
    }
    flips = {"flip_x": orientation.horizontal, "flip_y": orientation.vertical}
    return info | {flip: True for flip, is_done in flips.items() if is_done}


def _file(latents: LatentFile, name: str, arch: str, note: str) -> Exported:
    info = info_of(latents, name, arch)
    digest = hashlib.md5(json.dumps(info, sort_keys=True).encode(), usedforsecurity=False).digest()
    code = base64.urlsafe_b64encode(digest).decode().replace("=", "")
    # Like its get_meta_for_safetensors: text as it is, everything else as JSON.
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in info.items()}
    software = json.dumps({"name": "auravae", "version": __version__})
    metadata |= {"format": "pt", "software": software, NOTE: note}
    header = safetensors_file.header_bytes(
        {"latent": (latents.dtype, latents.values.shape)}, metadata
    )
    path = Path(name)
    place = (path.parent / FOLDER / f"{path.name}_{code}.safetensors").as_posix()
    return Exported(place, lambda: [header, latents.values.tobytes()])


def read(file: Foreign) -> Iterator[Found]:
    """Yield the latent, in the orientation that its file states."""
    tensors, metadata = safetensors_file.parse(file.content, any_dtype=True)
    latent = tensor(tensors, "latent")
    values = latent.values[:, 0] if _has_frame(latent.values.shape) else latent.values
    g = GroupElement(metadata.get("flip_x") == "true", metadata.get("flip_y") == "true")
    path, match = Path(file.stem), _HASH.fullmatch(Path(file.stem).name)
    folder = path.parent.parent if path.parent.name == FOLDER else path.parent
    note = metadata.get(NOTE)
    tag = f".{g}" if g.axes and note is None else ""  # ours has its own name already
    name = (folder / ((match[1] if match else path.name) + tag)).as_posix()
    facts = {"source": metadata.get("filename"), "orientation": g}
    ignored = tuple(key for key in tensors if key != "latent")
    ours = known(values, latent.dtype, note)
    is_copy = note is not None and COPY in read_json(note)
    yield Found(name, values, latent.dtype, ours, facts, ignored, is_copy)


def _has_frame(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[1] == 1


FORMAT = Format(
    name="ai-toolkit",
    rules="ostris/ai-toolkit, toolkit/dataloader_mixins.py at 515d75ae",
    suffixes=frozenset((".safetensors",)),
    write=write,
    read=read,
    keeps=frozenset(
        ("image_size", "padding", "source", "source_size", "source_box", "orientation")
        + ("stored_dtype",)
    ),
    note="the safetensors metadata key 'auravae'",
    flipped="a file of its own, with flip_x",
    archs=("flux1",),
    any_arch=True,
    dtypes=("float16", "bfloat16", "float32"),
    ignores=lambda name: Path(name).parent.name in ("_t_e_cache", "_clip_vision_cache"),
    advice="a file is found only where the trainer would have resized and cropped the same way",
)
