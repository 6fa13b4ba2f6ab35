"""kohya sd-scripts' latent caches: ``.npz`` with float32 ``latents`` and ``latents_flipped``.

Rules: kohya-ss/sd-scripts, library/strategy_base.py (save_latents_to_disk,
_default_load_latents_from_disk) at 040c04f1, and the suffix and stride in strategy_sd.py,
strategy_flux.py and their like. A file is looked up by its name: the picture's stem, its original
size as WxH, the network's suffix. Networks since SD3 put the latent's size, hxw, behind each key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    dtype_of,
    flipped,
    known,
    note_of,
    original_size,
    shown_box,
    widened,
)
from auravae_cli.exchange.formats.zip_container import Npz, array_text, npz_pieces, text_array
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile

VALUES, FLIPPED, SIZE, CROP = "latents", "latents_flipped", "original_size", "crop_ltrb"
ARCHS = (
    "flux",
    "sd3",
    "lumina",
    "anima",
    "hi",
    "sd",
    "sdxl",
)  # flux has this shape: 16 x H/8 x W/8
_ONE_SIZE = ("sd", "sdxl")  # whose keys have no size
_NAME = re.compile(r"(.+)_\d{4,}x\d{4,}_[a-z0-9]+")


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file; sizes are (width, height), the crop is in the picture as resized to the bucket."""
    _, height, width = latents.values.shape
    key = "" if choices.arch in _ONE_SIZE else f"_{height}x{width}"
    original = original_size(latents)
    arrays: dict[str, Array] = {
        VALUES + key: widened(latents),
        SIZE + key: np.array(original[::-1], "<i8"),
        CROP + key: np.array(shown_box(latents)[2:], "<i8"),
    }
    if choices.flipped:
        arrays[FLIPPED + key] = widened(latents, flipped(latents))
    arrays[NOTE] = text_array(note_of(latents))
    name = f"{names[0]}_{original[1]:04d}x{original[0]:04d}_{choices.arch}.npz"
    yield Exported(name, lambda: npz_pieces(arrays))


def read(file: Foreign) -> Iterator[Found]:
    """Yield the latents of all sizes in a file."""
    arrays = Npz(file.content)
    keys = [key for key in arrays if re.fullmatch(rf"{VALUES}(_\d+x\d+)?", key)]
    if not keys:
        found = ", ".join(map(repr, list(arrays)[:4])) or "nothing"
        raise LatentFileError(f"no array {VALUES!r} or '{VALUES}_HxW': it holds {found}")
    match = _NAME.fullmatch(file.stem)
    for key in keys:
        size = key.removeprefix(VALUES)
        name = (match[1] if match else file.stem) + (size.replace("_", ".") if keys[1:] else "")
        values, note = arrays[key], array_text(arrays.get(NOTE)) if not keys[1:] else None
        taken = (VALUES + size, SIZE + size, CROP + size)
        others = (k for k in arrays if k.endswith(size) and k not in (*taken, NOTE))
        ignored = tuple(key.removesuffix(size) for key in others)
        latent = known(values, dtype_of(values), note)
        yield Found(name, values, dtype_of(values), latent, _facts(arrays, size, file), ignored)


def _facts(arrays: Mapping[str, Array], size: str, file: Foreign) -> dict[str, object]:
    facts: dict[str, object] = {"source": Path(file.name).name}
    original, crop = arrays.get(SIZE + size), arrays.get(CROP + size)
    if original is not None and original.shape == (2,) and original.min() > 0:
        facts["source_size"] = (int(original[1]), int(original[0]))
    if crop is not None and crop.shape == (4,):
        facts["preparation"] = {CROP: [int(side) for side in crop]}
    return facts


FORMAT = Format(
    name="kohya",
    rules="kohya-ss/sd-scripts, library/strategy_base.py at 040c04f1",
    suffixes=frozenset((".npz",)),
    write=write,
    read=read,
    keeps=frozenset(("image_size", "source_size", "source_box", "padding", "source")),
    note="the .npz entry 'auravae'",
    flipped=FLIPPED,
    archs=ARCHS,
    size_in_name=True,
    ignores=lambda name: name.endswith(("_te.npz", "_te_outputs.npz")),
    advice="files belong beside their pictures",
)
