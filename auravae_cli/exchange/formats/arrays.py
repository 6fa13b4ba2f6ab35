"""Plain numpy files: ``.npy`` with only the values, ``.npz`` with ``latent`` and our metadata.

Rules: numpy's own, as `numpy.load` reads them without pickles. numpy has no bfloat16, which becomes
float32, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    as_numpy,
    dtype_of,
    each,
    flipped,
    known,
    note_of,
    says_flipped,
)
from auravae_cli.exchange.formats.zip_container import (
    Npz,
    array_text,
    npy_header,
    npz_pieces,
    read_npy,
    text_array,
)
from auravae_cli.files.typed import shown
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile

VALUES, FLIPPED = "latent", "latent_flipped"
_NAMES = (VALUES, "latents", "z", "arr_0")  # names that others use for latents


def write_npy(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield [C, h, w], and nothing else."""
    values = as_numpy(latents)
    yield Exported(f"{names[0]}.npy", lambda: [npy_header(values), values.data])


def write_npz(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield [C, h, w] as ``latent``, and its flipped copy."""
    arrays: dict[str, Array] = {VALUES: as_numpy(latents)}
    if choices.flipped:
        other = flipped(latents)
        wide = latents.dtype.name == "bfloat16"
        arrays[FLIPPED] = latents.dtype.to_float32(other) if wide else other
    arrays[NOTE] = text_array(note_of(latents))
    yield Exported(f"{names[0]}.npz", lambda: npz_pieces(arrays))


def read_plain(file: Foreign) -> Iterator[Found]:
    """Yield one latent, or each of a batch."""
    values = read_npy(file.content)
    yield from each(Found(file.stem, values, dtype_of(values)))


def read_zipped(file: Foreign) -> Iterator[Found]:
    """Yield the array with one of the usual names, or the only one that can be a latent."""
    arrays = Npz(file.content)
    if any(name.startswith(f"{NOTE}_") for name in arrays):  # which says more than the values
        raise LatentFileError("a file of kohya's, by our metadata: import it with `--from kohya`")
    able = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    alone = able[0] if len(able) == 1 and not says_flipped(able[0]) else None
    name = next((name for name in _NAMES if name in able), alone)
    if name is None:
        shapes = {key: list(array.shape) for key, array in arrays.items()}
        raise LatentFileError(f"expected an array {VALUES!r} [C, h, w], found {shown(shapes)}")
    values = np.ascontiguousarray(arrays[name])
    ignored = tuple(key for key in arrays if key not in (name, NOTE))
    note = array_text(arrays.get(NOTE))
    latent = known(values, dtype_of(values), note)
    yield from each(Found(file.stem, values, dtype_of(values), latent, ignored=ignored))


NPY = Format(
    name="npy",
    rules="numpy.load",
    suffixes=frozenset((".npy",)),
    write=write_npy,
    read=read_plain,
    dtypes=("float16", "float32"),
)
NPZ = Format(
    name="npz",
    rules="numpy.load",
    suffixes=frozenset((".npz",)),
    write=write_npz,
    read=read_zipped,
    note="the .npz entry 'auravae'",
    flipped=FLIPPED,
    dtypes=("float16", "float32"),
)
