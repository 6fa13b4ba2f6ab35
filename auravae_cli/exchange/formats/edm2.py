"""EDM2's datasets of latents: ``00000/img-mean-std-00000000.npy`` [2C, h, w] and ``dataset.json``.

Rules: NVlabs/edm2, dataset_tool.py (encode) and training/dataset.py (ImageFolderDataset) at
4bf8162f; training/encoders.py splits mean and standard deviation, which is 0 here: these latents
have no noise of their own. All must be squares of one size. Either all have labels, or none. The files
may be in a zip. REPA (sihyun-yu/REPA, dataset.py at 67f71450) pairs the sorted files with the sorted files
of ``images``, and needs labels. ``dataset.json`` also says which picture each file is of, for us.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

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
from auravae_cli.exchange.formats.zip_container import ZipMembers, npy_header, read_npy
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import Buffer, open_regular, read_within
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
    """``dataset.json``: the label of every file, or null if one has none, and their pictures. Kept on disk."""

    name = INDEX

    def __init__(self) -> None:
        self._labels, self._sources = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._count, self._complete = 0, True

    def add(self, exported: Exported, latents: LatentFile) -> None:
        """Add a file that was written. Raises OutputError if the disk is full."""
        record = latents.records[0]
        label = label_of(record)
        self._complete &= label is not None
        separator = ", " if self._count else ""
        try:
            for file, said in ((self._labels, label), (self._sources, record.source or record.key)):
                file.write(f"{separator}{json.dumps([exported.name, said])}".encode())
        except OSError as error:
            raise OutputError(f"cannot write to the temporary folder: {error.strerror}") from error
        self._count += 1

    def files(self) -> Iterator[Exported]:
        """Yield the file."""
        yield Exported(INDEX, self._pieces)

    def _pieces(self) -> Iterator[bytes]:
        """Yield the labels, as dataset_tool.py writes them, and the pictures."""
        if not self._complete or not self._count:
            yield b'{"labels": null'
        else:
            yield from self._table(b'{"labels": [', self._labels)
        yield from self._table(b', "sources": [', self._sources)
        yield b"}"

    def _table(self, start: bytes, file: IO[bytes]) -> Iterator[bytes]:
        file.seek(0)
        yield start
        while block := file.read(1 << 20):
            yield block
        yield b"]"

    def close(self) -> None:
        """Release the space on the disk."""
        self._labels.close()
        self._sources.close()


def read(file: Foreign) -> Iterator[Found]:
    """Yield the mean; a standard deviation that is not 0 is listed as not imported."""
    if bytes(file.content[:2]) == b"PK":
        yield from _zipped(file)
        return
    index, name = index_of(file.root, file.name)
    yield _found(file.stem, file.content, index, name)


def _zipped(file: Foreign) -> Iterator[Found]:
    """Yield the latents of a zip, by their names in it; a damaged one fails alone."""
    members = ZipMembers(file.content)
    if not any(name.endswith(".npy") for name in members):
        raise LatentFileError("a zip without .npy files")
    index = parse_index(members[INDEX], f"{file.name}: {INDEX}") if INDEX in members else Contents()
    for name in members:
        if name.endswith(".npy"):
            stem = name.removesuffix(".npy")
            try:
                yield _found(stem, members[name], index, name)
            except LatentFileError as error:
                yield Found.unusable(stem, error)


def _found(stem: str, content: Buffer, index: Contents, name: str) -> Found:
    both = read_npy(content)
    if both.ndim != 3 or both.shape[0] % 2:
        raise LatentFileError(f"shape {list(both.shape)}: expected [2C, h, w], mean and deviation")
    mean, deviation = np.split(both, 2)
    ignored = ("standard deviation",) if deviation.any() else ()
    label = index.labels.get(name)
    facts: dict[str, Any] = {"annotations": {} if label is None else {"label": label}}
    if source := index.sources.get(name):
        facts["source"] = source
    return Found(stem, mean, dtype_of(mean), None, facts, ignored)


@dataclass(frozen=True)
class Contents:
    """The labels and the pictures of files, from ``dataset.json``."""

    labels: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def index_of(root: str, name: str) -> tuple[Contents, str]:
    """Return the ``dataset.json`` of the named folder or of its parent, and a file's name in it.

    Raises LatentFileError if that is damaged.
    """
    found = read_index(Path(root))
    if found is not None:
        return found, name
    folder = Path(root).absolute()
    return read_index(folder.parent) or Contents(), f"{folder.name}/{name}"


def read_index(folder: Path) -> Contents | None:
    """Return what a folder's ``dataset.json`` says; None if there is no such file."""
    path = folder / INDEX
    try:
        return _read_path(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=1)
def _read_path(path: Path, version: int) -> Contents:
    try:
        with open_regular(path) as file:
            return parse_index(read_within(file, FILE_BYTES, LatentFileError), str(path))
    except OSError as error:
        raise LatentFileError(f"{path}: {error.strerror or error}") from error


def parse_index(content: Buffer, place: str) -> Contents:
    """Parse a ``dataset.json``; ``place`` is its name in messages. Raises LatentFileError."""
    try:
        found = _read_tables(read_json(bytes(content)))
    except ValueError as error:
        raise LatentFileError(f"{place}: no table of labels: {error}") from error
    sources = {name: source for name, source in found.get("sources") or () if source}
    return Contents(dict(found["labels"] or ()), sources)


_read_tables = table(
    {
        "labels": tuple[tuple[str, int], ...] | None,
        "sources": tuple[tuple[str, str | None], ...] | None,
    },
    optional=("sources",),
    others=True,
)


FORMAT = Format(
    name="edm2",
    rules="NVlabs/edm2, dataset_tool.py and training/dataset.py at 4bf8162f",
    suffixes=frozenset((".npy", ".zip")),
    containers=(".zip",),
    write=write,
    read=read,
    keeps=frozenset(("label", "source")),
    squares=True,
    index=Labels,
    paired=True,
    advice="its xflip reverses the axis alone, which is wrong for these latents: leave it off, and "
    "export flipped latents too where you want them",
)
