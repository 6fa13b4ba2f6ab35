"""REPA-E's latents: ``latents.h5``, an HDF5 file of EDM2's arrays [2C, h, w], and ``latents_h5.json``.

Rules: End2End-Diffusion/REPA-E, cache_latents.py and dataset.py (CustomH5Dataset) at 3ad80468: a dataset per
latent, ``00000/img-mean-std-00000000.npy``, mean and standard deviation in float32; the deviation is 0
here. The dataset ``dataset.json`` holds the labels, and is required. The sorted names are paired with those of the
pictures. Written by h5py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np

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
        self._labels: list[tuple[str, int]] = []

    def add(self, exported: Exported, latents: LatentFile) -> None:
        """Add a latent. Raises OutputError if the disk is full."""
        mean = widened(latents)
        try:
            self._h5.create_dataset(exported.name, data=np.concatenate([mean, np.zeros_like(mean)]))
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

    names: list[str] = []
    try:
        with h5py.File(BytesFile(view_of(file.content)), "r") as content:
            # Links other than hard ones are not visited.
            content.visititems(lambda name, item: names.append(name) if _is_array(item) else None)
            if not names:
                raise LatentFileError("no HDF5 file of latents: none of its datasets ends in .npy")
            labels = _labels(content)
            for name in names:
                yield _found(name.removesuffix(".npy"), content[name], labels.get(name))
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise LatentFileError(f"no HDF5 file, or a damaged one: {reason}") from error


def _is_array(item: Any) -> bool:
    return hasattr(item, "shape") and str(item.name).endswith(".npy")


def _labels(content: Any) -> dict[str, int]:
    """Return the labels by the names of latents."""
    if LABELS not in content or content.get(LABELS, getlink=True).__class__.__name__ != "HardLink":
        return {}
    item = content[LABELS]
    _refuse_elsewhere(item)
    return dict(edm2.parse_index(bytes(np.array(item).tobytes()).rstrip(b"\0"), LABELS).labels)


def _refuse_elsewhere(item: Any) -> None:
    """Raise LatentFileError for a dataset whose values are in other files, or too large."""
    if item.external or item.is_virtual:
        raise LatentFileError("its values are in another file, which is not read")
    FILE_BYTES.check(item.size * item.dtype.itemsize, LatentFileError)


def _found(stem: str, item: Any, label: int | None) -> Found:
    """Return the mean of a latent; a damaged one fails alone."""
    try:
        _refuse_elsewhere(item)
        both = np.array(item)
        require_values(both)
        if both.ndim != 3 or both.shape[0] % 2:
            raise LatentFileError(f"shape {list(both.shape)}: expected [2C, h, w]")
    except (LatentFileError, OSError, ValueError, TypeError) as error:
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
