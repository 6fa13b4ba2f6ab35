"""ai-toolkit's latent caches: ``_latent_cache/STEM_HASH.safetensors`` with ``latent`` [C, h, w].

Rules: ostris/ai-toolkit, toolkit/dataloader_mixins.py (setup_buckets, get_latent_info_dict,
get_latent_path, cache_latents_all_latents) at 27a03a91. A file is looked up by the hash of the picture's
preparation. There, a flipped picture is a separate item with ``flip_x``, and so has its own file. It is
flipped before it is cropped by the same numbers, so these do not depend on the flip.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    Network,
    known,
    note_of,
    original_size,
    shown_box,
    source_name,
    tensor,
    without_frame,
)
from auravae_cli.files.canonical_json import read_json
from auravae_cli.images.trainer_buckets import AiToolkitBuckets
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.symmetry.group import GroupElement, H
from auravae_cli.version import __version__

FOLDER, LATENT_VERSION = "_latent_cache", 1
COPY = "flipped_copy"  # in our metadata: the flip by which this file is the copy of another
CROP = "ai_toolkit_crop"  # in the preparation of an imported latent: the numbers of _CROP
_CROP = ("scale_to_width", "scale_to_height", "crop_x", "crop_y", "crop_width", "crop_height")
_TEXTS = ("filename", "latent_space_version")  # that are not JSON in the metadata
_FLIPS = ("flip_x", "flip_y")
_HASH = re.compile(r"(.+)_[A-Za-z0-9_-]{22}")


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file, and another one for the flipped picture."""
    yield _file(latents, names[0], choices.arch, note_of(latents))
    if choices.flipped:
        flipped = latents.act(H)
        yield _file(flipped, names[0], choices.arch, note_of(flipped, None, **{COPY: str(H)}))


def info_of(latents: LatentFile, name: str, arch: str) -> dict[str, object]:
    """Return what ai-toolkit hashes: the file, its resizing and cropping, flips, and the network."""
    orientation = latents.records[0].orientation
    info: dict[str, object] = {
        "filename": source_name(latents, name),
        **_crop_of(latents),
        "latent_space_version": arch,
        "latent_version": LATENT_VERSION,
    }
    flips = zip(_FLIPS, (orientation.horizontal, orientation.vertical), strict=True)
    return info | {flip: True for flip, is_done in flips if is_done}


def _crop_of(latents: LatentFile) -> dict[str, int]:
    """Return its resizing and cropping: the trainer's numbers if the latent shows the same, up to a pixel."""
    if (imported := latents.records[0].preparation.get(CROP)) is not None:
        return dict(zip(_CROP, imported, strict=True))
    shown, theirs = _shown(latents), _theirs(latents)
    return dict(zip(_CROP, theirs if _is_same(shown, theirs) else shown, strict=True))


def _shown(latents: LatentFile) -> tuple[int, ...]:
    """Return the numbers of _CROP for what the latent shows."""
    width, height, left, top, right, bottom = shown_box(latents)
    return width, height, left, top, right - left, bottom - top


def _theirs(latents: LatentFile) -> tuple[int, ...]:
    """Return the numbers of _CROP that the trainer has if the latent's size is its bucket."""
    *_, wide, high = _shown(latents)
    return _central_crop(original_size(latents), (high, wide))


def _is_same(shown: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(shown, theirs, strict=True)) <= 1


def _central_crop(size: tuple[int, int], bucket: tuple[int, int]) -> tuple[int, ...]:
    """Return the numbers of _CROP for a picture and a bucket, each (height, width)."""
    scaled = AiToolkitBuckets.scaled(size, bucket)
    crop = [int((side - part) / 2) for side, part in zip(scaled, bucket, strict=True)]
    return scaled[1], scaled[0], crop[1], crop[0], bucket[1], bucket[0]


def _file(latents: LatentFile, name: str, arch: str, note: str) -> Exported:
    info = info_of(latents, name, arch)
    # Like its get_meta_for_safetensors: text as it is, everything else as JSON.
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in info.items()}
    software = json.dumps({"name": "auravae", "version": __version__})
    metadata |= {"format": "pt", "software": software, NOTE: note}
    header = safetensors_file.header_bytes(
        {"latent": (latents.dtype, latents.values.shape)}, metadata
    )
    path = Path(name)
    place = (path.parent / FOLDER / f"{path.name}_{_hash(info)}.safetensors").as_posix()
    return Exported(place, lambda: [header, latents.values.tobytes()])


def _hash(info: Mapping[str, object]) -> str:
    """Return the hash that names a file."""
    digest = hashlib.md5(json.dumps(info, sort_keys=True).encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).decode().replace("=", "")


def read(file: Foreign) -> Iterator[Found]:
    """Yield the latent, in the orientation that its file states."""
    tensors, metadata = safetensors_file.parse(file.content, any_dtype=True)
    latent = tensor(tensors, "latent")
    values = without_frame(latent.values)
    g = GroupElement(*(metadata.get(flip) == "true" for flip in _FLIPS))
    path, match = Path(file.stem), _HASH.fullmatch(Path(file.stem).name)
    folder = path.parent.parent if path.parent.name == FOLDER else path.parent
    note = metadata.get(NOTE)
    ours = known(values, latent.dtype, note)
    tag = f".{g}" if g.axes and ours is None else ""  # ours has its own name already
    name = (folder / ((match[1] if match else path.name) + tag)).as_posix()
    ignored = tuple(key for key in tensors if key != "latent")
    is_copy = COPY in read_json(note or "") if ours else bool(g.axes) and _has_plain(file, metadata)
    facts = {"source": metadata.get("filename"), "orientation": g, **_preparation(metadata)}
    yield Found(name, values, latent.dtype, ours, facts, ignored, is_copy)


def _preparation(metadata: Mapping[str, str]) -> dict[str, object]:
    """Return how the trainer resized and cropped the picture, so that an export finds the same name."""
    numbers = [metadata.get(name, "") for name in _CROP]
    if all(re.fullmatch(r"\d{1,9}", number) for number in numbers):
        return {"preparation": {CROP: [int(number) for number in numbers]}}
    return {}


def _has_plain(file: Foreign, metadata: Mapping[str, str]) -> bool:
    """Return whether the latent of the unflipped picture is in the same folder."""
    info = {
        key: value if key in _TEXTS else read_json(value)
        for key, value in metadata.items()
        if key not in (*_FLIPS, "format", "software", NOTE)
    }
    stem = Path(str(metadata.get("filename"))).stem
    folder = Path(file.root, file.name).parent
    return (folder / f"{stem}_{_hash(info)}.safetensors").is_file()


FORMAT = Format(
    name="ai-toolkit",
    rules="ostris/ai-toolkit, toolkit/dataloader_mixins.py at 27a03a91",
    suffixes=frozenset((".safetensors",)),
    write=write,
    read=read,
    keeps=frozenset(
        ("image_size", "padding", "source", "source_size", "source_box", "orientation")
        + ("stored_dtype",)
    ),
    note="the safetensors metadata key 'auravae'",
    flipped="a file of its own, with flip_x",
    archs={"flux1": Network()},
    apart=lambda z: (z.records[0].source, z.records[0].orientation, *shown_box(z)),
    by_picture=True,
    any_arch=True,
    dtypes=("float16", "bfloat16", "float32"),
    is_cropped=lambda latents: _is_same(_shown(latents), _theirs(latents)),
    ignores=lambda name: Path(name).parent.name in ("_t_e_cache", "_clip_vision_cache"),
    advice="a file is found only where the trainer would have resized and cropped the same way",
)
