"""kohya sd-scripts' latent caches: ``.npz`` with float32 ``latents`` and ``latents_flipped``.

Rules: kohya-ss/sd-scripts, library/strategy_base.py (save_latents_to_disk,
_default_load_latents_from_disk), the suffix and stride in strategy_sd.py, strategy_flux.py and their
like, and shift_scale_latents of the trainers, at 48d368fa. A file is looked up by its name: the
picture's stem, its original size as WxH, the network's suffix. Networks since SD3 put the latent's
size, hxw, behind each key, and keep several sizes in a file. sd-scripts adds its own to a file and
keeps what else is in it, so each size has its own metadata of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    Network,
    dtype_of,
    flipped,
    folded,
    known,
    note_of,
    original_size,
    shown_box,
    widened,
    without_frame,
)
from auravae_cli.exchange.formats.zip_container import Npz, array_text, npz_pieces, text_array
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.symmetry.group import E

VALUES, FLIPPED, SIZE, CROP = "latents", "latents_flipped", "original_size", "crop_ltrb"
ARCHS = {  # of 16 x H/8 x W/8; flux, lumina and anima are normalised before they are cached
    "flux": Network(),
    "sd3": Network(shift=0.0609, scale=1.5305),
    "lumina": Network(),
    "anima": Network(),
    "sd": Network(4, scale=0.18215),
    "sdxl": Network(4, scale=0.13025),
}
_ONE_SIZE = ("sd", "sdxl")  # whose keys have no size
_FARTHEST = 1 << 31  # a side of a crop, in pixels
_SIZED = re.compile(r"(.+?)(_\d+x\d+)")
_NAME = re.compile(r"(.+)_\d{4,}x\d{4,}_[a-z0-9]+")


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file; sizes are (width, height), the crop is in the picture as resized to the bucket."""
    _, height, width = latents.values.shape
    key = "" if choices.arch in _ONE_SIZE else f"_{height}x{width}"
    original = original_size(latents)
    arrays: dict[str, Array] = {
        NOTE + key: text_array(note_of(latents, choices.fold)),
        CROP + key: np.array(_crop_of(latents), "<i8"),
        VALUES + key: folded(widened(latents), choices.fold),
        SIZE + key: np.array(original[::-1], "<i8"),
    }
    if choices.flipped:
        mirrored = widened(latents, flipped(latents))
        arrays[FLIPPED + key] = folded(mirrored, choices.fold)
    name = f"{names[0]}_{original[1]:04d}x{original[0]:04d}_{choices.arch}.npz"
    yield Exported(name, lambda: npz_pieces(_ordered(arrays)))


def _crop_of(latents: LatentFile) -> Sequence[int]:
    """Return (left, top, right, bottom): the trainer's own numbers if they were imported, and nothing flipped since."""
    record = latents.records[0]
    said = record.preparation.get(CROP)
    sides = [n for n in said if type(n) is int and abs(n) < _FARTHEST] if type(said) is list else []
    if record.orientation == E and len(sides) == 4:
        return sides
    return shown_box(latents, record.orientation)[2:]


def merge(existing: bytes, added: bytes, overwrite: bool) -> bytes:
    """Return a file with the arrays of both, as sd-scripts adds a size to a file.

    Raises LatentFileError if an array would be replaced, and ``overwrite`` does not say so. What belongs to
    latents that are replaced (a mirrored copy, a mask) would be wrong beside others, and goes with them.
    """
    before, now = dict(Npz(existing)), dict(Npz(added))
    replaced = set[str]()
    for key, array in now.items():
        if key not in before or np.array_equal(before[key], array):
            continue
        if not overwrite:
            raise LatentFileError(f"its {key!r} is another one")
        if _part_of(key)[0] == VALUES:
            replaced.add(_part_of(key)[1])
    kept = {key: array for key, array in before.items() if _part_of(key)[1] not in replaced}
    return b"".join(npz_pieces(_ordered(kept | now)))


def _part_of(key: str) -> tuple[str, str]:
    """Return what an array is, and the latent's size with the ``_`` before it, or nothing."""
    match = _SIZED.fullmatch(key)
    return (match[1], match[2]) if match else (key, "")


def _ordered(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays in one order, whatever was added first; the latents lead, by which a file is known."""
    names = sorted(arrays, key=lambda name: (not name.startswith(VALUES), name))
    return {name: arrays[name] for name in names}


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
        values, note = without_frame(arrays[key]), array_text(arrays.get(NOTE + size))
        taken = (VALUES + size, SIZE + size, CROP + size, NOTE + size)
        others = (k for k in arrays if k.endswith(size) and k not in taken)
        ignored = tuple(key.removesuffix(size) for key in others if not key.startswith(f"{NOTE}_"))
        try:
            latent = known(values, dtype_of(values), note)
        except LatentFileError as error:  # of one size; the others may be sound
            yield Found.unusable(name, error)
            continue
        yield Found(name, values, dtype_of(values), latent, _facts(arrays, size), ignored)


def _facts(arrays: Mapping[str, Array], size: str) -> dict[str, object]:
    facts: dict[str, object] = {}
    original, crop = arrays.get(SIZE + size), arrays.get(CROP + size)
    if original is not None and original.shape == (2,) and original.min() > 0:
        facts["source_size"] = (int(original[1]), int(original[0]))
    if crop is not None and crop.shape == (4,):
        facts["preparation"] = {CROP: [int(side) for side in crop]}
    return facts


FORMAT = Format(
    name="kohya",
    rules="kohya-ss/sd-scripts, library/strategy_base.py at 48d368fa",
    suffixes=frozenset((".npz",)),
    write=write,
    read=read,
    keeps=frozenset(("image_size", "source_size", "source_box", "padding", "source")),
    note="the .npz entry 'auravae'",
    flipped=FLIPPED,
    archs=ARCHS,
    apart=lambda latents: (original_size(latents), latents.values.shape),
    by_picture=True,
    turns_pictures=False,
    merge=merge,
    ignores=lambda name: name.endswith(("_te.npz", "_te_outputs.npz")),
    advice="files belong beside their pictures",
)
