"""Write the files of an export: complete or not at all, and nothing replaced unasked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from auravae_cli.errors import LatentFileError, OutputError
from auravae_cli.exchange.formats.base import Exported
from auravae_cli.files.atomic import atomic_file
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import open_regular, read_within
from auravae_cli.files.places import below
from auravae_cli.operations.batches import Outcome
from auravae_cli.operations.kept_inputs import KeptInputs
from auravae_cli.operations.outputs import holds, is_taken, refuse_to_replace
from auravae_cli.operations.taken_names import TakenNames

_BLOCK_BYTES = 1 << 20  # written at once
Merge = Callable[[bytes, bytes, bool], bytes]


@dataclass(frozen=True)
class FileWriter:
    """Writes files below a folder, from several threads. ``merge`` is that of `Format`."""

    folder: Path
    overwrite: bool = False
    merge: Merge | None = None
    inputs: KeptInputs = KeptInputs()
    _locks: tuple[Lock, ...] = field(default_factory=lambda: tuple(Lock() for _ in range(64)))

    def write(self, source: str, file: Exported, rows: int) -> Outcome:
        """Write a file, unless it exists already. Raises OutputError."""
        path = below(self.folder, file.name)
        with self._locks[hash(path) % len(self._locks)]:
            if is_taken(path):
                is_done = not self.overwrite and holds(path, file.pieces())
                if not is_done and self.merge is not None:
                    file = self._with_others(path, file, self.merge)
                    is_done = not self.overwrite and holds(path, file.pieces())
                if is_done:
                    return Outcome(source, "skipped", str(path), "up to date")
                if self.merge is None:
                    refuse_to_replace(path, self.overwrite)
                self.inputs.refuse(path)
            with atomic_file(path) as output:
                for block in _joined(file.pieces()):
                    output.write(block)
            return Outcome(source, "done", str(path), details={"latents": rows})

    def _with_others(self, path: Path, file: Exported, merge: Merge) -> Exported:
        """Return a file with what else an existing one holds, in a format that shares files.

        Raises OutputError if it would replace something.
        """
        try:
            with open_regular(path) as existing:
                content = read_within(existing, FILE_BYTES, LatentFileError)
            merged = merge(content, b"".join(file.pieces()), self.overwrite)
        except LatentFileError:
            refuse_to_replace(path, self.overwrite)
            return file
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error
        return Exported(file.name, lambda: [merged])


@dataclass
class EarlierFiles:
    """Finds numbered files of an earlier export of more latents, which this one does not replace.

    Readers take them in. They are those whose names differ from this export's in numbers alone.
    """

    folder: Path
    _kinds: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names = TakenNames(self.folder)

    def add(self, name: str) -> None:
        """Add the name of a file of this export."""
        self._names.take(name)
        self._kinds.add(_without_numbers(name))

    def count(self) -> int:
        """Return how many other files there are."""
        if not self._kinds:
            return 0
        found = (Path(folder, file) for folder, _, files in os.walk(self.folder) for file in files)
        names = (path.relative_to(self.folder).as_posix() for path in found)
        return sum(
            _without_numbers(name) in self._kinds and self._names.take(name) for name in names
        )


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Join small pieces, since each write is a system call. A block is valid until the next one is requested."""
    block = memoryview(bytearray(_BLOCK_BYTES))  # one, since new memory costs as much as a copy
    size = 0
    for piece in pieces:
        content = memoryview(piece)
        length = content.nbytes
        if size + length > _BLOCK_BYTES:
            yield block[:size]
            size = 0
        if length >= _BLOCK_BYTES:
            yield content
        elif length:
            block[size : size + length] = content.cast("B")
            size += length
    yield block[:size]
