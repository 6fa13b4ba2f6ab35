"""EDM2's datasets of latents: ``00000/img-mean-std-00000000.npy`` [2C, h, w] and ``dataset.json``.

Rules: NVlabs/edm2, dataset_tool.py (encode) and training/dataset.py (ImageFolderDataset) at
d8299d3c; training/encoders.py splits mean and standard deviation, which is 0 here: these latents
have no noise of their own. All must be squares of one size. Either all have labels, or none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from auravae_cli.errors import LatentFileError, OutputError
from auravae_cli.exchange.formats.base import (
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    dtype_of,
    label_of,
    widened,
)
from auravae_cli.exchange.formats.zip_container import npy_header, read_npy
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import open_regular, read_within
from auravae_cli.files.typed import table
from auravae_cli.latents.latent_file import LatentFile

INDEX = "dataset.json"


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file, named by its number."""
    mean = widened(latents)
    both = np.concatenate([mean, np.zeros_like(mean)])
    name = f"{number // 1000:05d}/img-mean-std-{number:08d}.npy"
    yield Exported(name, lambda: [npy_header(both), both.data])


class Labels:
    """``dataset.json``: the label of every file, or null if one has none. Kept on disk."""

    name = INDEX

    def __init__(self) -> None:
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        self._count, self._complete = 0, True

    def add(self, exported: Exported, latents: LatentFile) -> None:
        """Add a file that was written. Raises OutputError if the disk is full."""
        label = label_of(latents.records[0])
        self._complete &= label is not None
        separator = ", " if self._count else ""
        try:
            self._lines.write(f"{separator}{json.dumps([exported.name, label])}".encode())
        except OSError as error:
            raise OutputError(f"cannot write to the temporary folder: {error.strerror}") from error
        self._count += 1

    def pieces(self) -> Iterator[bytes]:
        """Yield the file, as dataset_tool.py writes it."""
        if not self._complete or not self._count:
            yield b'{"labels": null}'
            return
        self._lines.seek(0)
        yield b'{"labels": ['
        while block := self._lines.read(1 << 20):
            yield block
        yield b"]}"

    def close(self) -> None:
        """Release the space on the disk."""
        self._lines.close()


def read(file: Foreign) -> Iterator[Found]:
    """Yield the mean; a standard deviation that is not 0 is listed as not imported."""
    both = read_npy(file.content)
    if both.ndim != 3 or both.shape[0] % 2:
        raise LatentFileError(f"shape {list(both.shape)}: expected [2C, h, w], mean and deviation")
    mean, deviation = np.split(both, 2)
    ignored = ("standard deviation",) if deviation.any() else ()
    label = label_in(file.root, file.name)
    facts = {"annotations": {} if label is None else {"label": label}}
    yield Found(file.stem, mean, dtype_of(mean), None, facts, ignored)


def label_in(root: str, name: str) -> int | None:
    """Return the label of a file, by the ``dataset.json`` of the named folder or of its parent.

    Raises LatentFileError if that is damaged.
    """
    labels = _labels_of(Path(root))
    if labels is not None:
        return labels.get(name)
    folder = Path(root).absolute()
    return (_labels_of(folder.parent) or {}).get(f"{folder.name}/{name}")


def _labels_of(folder: Path) -> dict[str, int] | None:
    """Return the labels in a folder's ``dataset.json``; None if there is no such file."""
    path = folder / INDEX
    try:
        return _labels(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=1)
def _labels(path: Path, version: int) -> dict[str, int]:
    try:
        with open_regular(path) as file:
            content = read_within(file, FILE_BYTES, LatentFileError)
        labels = _read_labels(read_json(content))["labels"]
        return dict(labels or ())
    except OSError as error:
        raise LatentFileError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LatentFileError(f"{path}: no table of labels: {error}") from error


_read_labels = table({"labels": tuple[tuple[str, int], ...] | None}, others=True)


FORMAT = Format(
    name="edm2",
    rules="NVlabs/edm2, dataset_tool.py and training/dataset.py at d8299d3c",
    suffixes=frozenset((".npy",)),
    write=write,
    read=read,
    keeps=frozenset(("label",)),
    squares=True,
    index=Labels,
    advice="its xflip reverses the axis alone, which is wrong for these latents: leave it off, and "
    "export flipped latents too where you want them",
)
