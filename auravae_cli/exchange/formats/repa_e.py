"""REPA-E's latents: ``latents.h5``, an HDF5 file of EDM2's arrays [2C, h, w], and ``latents_h5.json``.

Rules: End2End-Diffusion/REPA-E, cache_latents.py and dataset.py (CustomH5Dataset) at 3ad80468: a dataset per
latent, ``00000/img-mean-std-00000000.npy``, mean and standard deviation in float32; the deviation is 0
here. The dataset ``dataset.json`` holds the labels, and is required. The sorted names are paired with those of the
pictures. Written by h5py.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import LatentFileError, OutputError
from auravae_cli.exchange.formats import edm2
from auravae_cli.exchange.formats.base import (
    Choices,
    Exported,
    Foreign,
    Found,
    dtype_of,
    label_of,
    require_values,
    widened,
)
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import BytesFile, view_of
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile

NAME, NAMES, LABELS = "latents.h5", "latents_h5.json", edm2.INDEX
_BLOCK_BYTES = 1 << 20


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield an entry of the one file, named by its number."""
    yield Exported(f"{number // 1000:05d}/img-mean-std-{number:08d}.npy", lambda: ())


class Collected:
    """The one file, which grows in the temporary folder, and the list of its names."""

    name = NAME

    def __init__(self) -> None:
        import h5py

        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._h5 = h5py.File(self._file, "w")
        self._with_folders = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        self._with_folders.set_create_intermediate_group(True)
        self._without_time = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        self._without_time.set_obj_track_times(False)
        self._both: NDArray[np.float32] = np.zeros(0, "<f4")
        self._space: Any = None
        self._labels: list[tuple[str, int]] = []

    def add(self, exported: Exported, latents: LatentFile) -> None:
        """Add a latent. Raises OutputError if the disk is full."""
        from h5py import h5d, h5s, h5t

        channels, *sides = latents.values.shape
        if self._space is None:  # all are of one size
            self._both = np.zeros((2 * channels, *sides), "<f4")
            self._space = h5s.create_simple(self._both.shape)
        self._both[:channels] = widened(latents)
        try:  # `create_dataset` makes the same bytes in twice the time
            dataset = h5d.create(
                *(self._h5.id, exported.name.encode(), h5t.IEEE_F32LE, self._space),
                *(self._without_time, self._with_folders),
            )
            dataset.write(h5s.ALL, h5s.ALL, self._both)
        except OSError as error:
            raise OutputError(f"cannot write to the temporary folder: {error}") from error
        self._labels.append((exported.name, label_of(latents.records[0]) or 0))

    def files(self) -> Iterator[Exported]:
        """Yield the file, and the list."""
        labels = json.dumps({"labels": self._labels}).encode()
        self._h5.create_dataset(LABELS, data=np.array(labels, "S"))
        self._h5.close()
        yield Exported(NAME, self._pieces)
        names = [name for name, _ in self._labels] + [LABELS]
        yield Exported(NAMES, lambda: [json.dumps(names, indent=2).encode()])

    def _pieces(self) -> Iterator[bytes]:
        self._file.seek(0)
        while block := self._file.read(_BLOCK_BYTES):
            yield block

    def close(self) -> None:
        """Release the space on the disk."""
        self._h5.close()
        self._file.close()


def read(file: Foreign) -> Iterator[Found]:
    """Yield the mean of every latent, by its name in the file; links to other files are not followed."""
    import h5py

    view = view_of(file.content)
    names: list[bytes] = []
    try:
        with h5py.File(BytesFile(view), "r") as content:
            # Links other than hard ones are not visited.
            h5py.h5o.visit(content.id, names.append)
            arrays = [name for name in names if name.endswith(b".npy")]
            if not arrays:
                raise LatentFileError("no HDF5 file of latents: none of its datasets ends in .npy")
            labels = _labels(content)
            for name in arrays:
                path = name.decode(errors="replace")
                yield _found(content, view, name, path.removesuffix(".npy"), labels.get(path))
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise LatentFileError(f"no HDF5 file, or a damaged one: {reason}") from error


def _labels(content: Any) -> dict[str, int]:
    """Return the labels by the names of latents."""
    if LABELS not in content or content.get(LABELS, getlink=True).__class__.__name__ != "HardLink":
        return {}
    text = _array(content[LABELS].id, None).tobytes().rstrip(b"\0")
    return dict(edm2.parse_index(text, LABELS).labels)


def _array(dataset: Any, mapped: memoryview | None) -> Array:
    """Return the values of a dataset (of h5py's lower level): a view of ``mapped``, the file, if they lie together.

    Raises LatentFileError if they are in other files, or too many.
    """
    import h5py

    how = dataset.get_create_plist()
    layout = how.get_layout()
    if layout == h5py.h5d.VIRTUAL or how.get_external_count():
        raise LatentFileError("its values are in another file, which is not read")
    shape, dtype = dataset.shape, dataset.dtype
    FILE_BYTES.check(math.prod(shape) * dtype.itemsize, LatentFileError)
    start = dataset.get_offset() if layout == h5py.h5d.CONTIGUOUS else None
    if mapped is not None and start is not None and not dtype.hasobject:
        values: Array = np.frombuffer(mapped, dtype, math.prod(shape), start).reshape(shape)
    else:
        values = np.array(h5py.Dataset(dataset))
    return values if dtype.isnative else values.astype(dtype.newbyteorder("="))


def _found(content: Any, view: memoryview, name: bytes, stem: str, label: int | None) -> Found:
    """Return the mean of a latent; a damaged one fails alone."""
    import h5py

    try:
        both = _array(h5py.h5d.open(content.id, name), view)
        require_values(both)
        if both.ndim != 3 or both.shape[0] % 2:
            raise LatentFileError(f"shape {list(both.shape)}: expected [2C, h, w]")
    except (LatentFileError, OSError, ValueError, TypeError, KeyError) as error:
        return Found.unusable(stem, error)
    mean, deviation = np.split(both, 2)
    ignored = ("standard deviation",) if deviation.any() else ()
    facts = {"annotations": {} if label is None else {"label": label}}
    return Found(stem, mean, dtype_of(mean), None, facts, ignored)


FORMAT = replace(
    edm2.FORMAT,
    name="repa-e",
    rules="End2End-Diffusion/REPA-E, cache_latents.py and dataset.py at 3ad80468",
    suffixes=frozenset((".h5", ".hdf5")),
    containers=(".h5", ".hdf5"),
    write=write,
    read=read,
    keeps=frozenset(("label",)),
    index=Collected,
    collects=True,
    fills_labels=True,
    needs="h5py",
    advice="it subtracts the bias in the statistics of its autoencoder, which must be 0 for the channels that a "
    "flip negates",
)
