"""Collect the rows of a shard in progress, spooling many of them to disk, and commit them in order."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from auravae_cli.errors import LatentFileError, OutputError, StoreError
from auravae_cli.files.mapping import map_or_read
from auravae_cli.files.storage import Storage
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile, Record, parse_latents
from auravae_cli.store.commit import PreviousShard, commit_shard, write_hashed
from auravae_cli.store.ledger import Failure
from auravae_cli.store.manifest import Manifest, Output, SourceState
from auravae_cli.store.names import output_name
from auravae_cli.store.settings import StoreSettings
from auravae_cli.version import __version__

_BLOCK_BYTES = 1 << 20
Shape: TypeAlias = tuple[int, int, int, int]  # [N, C, h, w]
_LONGEST_ESCAPE = 16  # bytes in a header per character: an escaped pair, escaped again
_WAITING_BYTES = 128 << 20  # of a shard's rows kept in memory


class RowSpool:
    """Latents of one shape, added in any order: kept in memory, then in a scratch file."""

    def __init__(self, path: Path, first: LatentFile) -> None:
        self._path, self._first = path, first
        self._waiting: list[Array] = []
        self._indices: list[int] = []
        self._records: list[Record] = []

    def add(self, index: int, latent: LatentFile) -> None:
        """Add a single latent; ``index`` is its sample's place in the input shard."""
        self._waiting.append(latent.values)
        self._indices.append(index)
        self._records.append(latent.records[0])

    def annotate(self, late: dict[str, dict[str, Any]]) -> None:
        """Give rows, by key, more annotations."""
        for place, record in enumerate(self._records):
            if record.key in late:
                annotations = record.annotations | late[record.key]
                self._records[place] = replace(record, annotations=annotations)

    def write(self) -> None:
        """Write the rows in memory to the disk."""
        with self._path.open("ab") as file:  # not kept open: there may be a thousand shapes
            file.writelines(np.ascontiguousarray(values).data for values in self._waiting)
        self._waiting.clear()

    def finish(self, place: Callable[[int], Path]) -> Iterator[tuple[Path, int, str, Shape]]:
        """Write the shard's files, with rows in the order of the input. Yield path, size, sha256 and shape of each.

        There is one file, unless its header would be longer than readers accept; ``place`` returns the path of
        each part.
        """
        order = np.argsort(self._indices, kind="stable").tolist()
        channels, height, width = self._first.values.shape
        values = self._all((len(order), channels, height, width))
        start = 0
        for number, (rows, header) in enumerate(
            _headers(self._first, tuple(self._records[i] for i in order))
        ):
            part, start = order[start : start + rows], start + rows
            path = place(number)
            size, digest = write_hashed(path, chain([header], _blocks(values, part)))
            yield path, size, digest, (rows, channels, height, width)
        del values
        self._waiting.clear()
        self.discard()

    def _all(self, shape: tuple[int, ...]) -> Sequence[Array] | Array:
        """Return the values of each row, in the order added."""
        if not self._path.exists():
            return self._waiting
        self.write()
        with self._path.open("rb") as file:
            return np.frombuffer(map_or_read(file), self._first.values.dtype).reshape(shape)

    def discard(self) -> None:
        """Discard the rows."""
        self._path.unlink(missing_ok=True)


class ShardWriter:
    """The rows of a shard so far: latents by shape, and failures. Must be committed or discarded."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.name, self._scratch = name, scratch
        self._spools: dict[tuple[int, ...], RowSpool] = {}
        self._failures: list[tuple[int, Failure]] = []
        self._waiting = 0

    def add(self, index: int, item: LatentFile | Failure) -> LatentFile | Failure:
        """Add the outcome of a sample. If no header can hold its record, a failure is added and returned instead.

        Raises OutputError if the disk is full.
        """
        if isinstance(item, LatentFile):
            item = _writable(item)
        if isinstance(item, Failure):
            self._failures.append((index, item))
            return item
        try:
            shape = item.values.shape
            if shape not in self._spools:
                path = self._scratch / f"spool-{id(self)}-{len(self._spools)}"
                self._spools[shape] = RowSpool(path, item)
            self._spools[shape].add(index, item)
            self._waiting += item.values.nbytes
            if self._waiting > _WAITING_BYTES:
                for spool in self._spools.values():
                    spool.write()
                self._waiting = 0
        except OSError as error:
            raise OutputError(f"cannot write {self._scratch}: {error.strerror}") from error
        return item

    def annotate(self, late: dict[str, dict[str, Any]]) -> None:
        """Give rows that are here more annotations, by key: those that came after them."""
        for spool in self._spools.values() if late else ():
            spool.annotate(late)

    def commit(
        self,
        storage: Storage,
        settings: StoreSettings,
        states: list[SourceState],
        old: PreviousShard,
        *,
        keeps: bool = False,
    ) -> Manifest | None:
        """Publish the shard, the manifest last; see `commit_shard`. Raises OutputError or StoreError."""
        try:
            finished, outputs = dict[str, Path](), list[Output]()
            for number, (shape, spool) in enumerate(self._spools.items()):
                files = spool.finish(partial(self._output, number))
                for part, (path, size, sha256, stacked) in enumerate(files):
                    name = output_name(self.name, shape[-2:], part)
                    finished[name] = path
                    outputs.append(Output(name, size, sha256, stacked))
        except OSError as error:
            raise OutputError(f"cannot write {self._scratch}: {error.strerror}") from error
        manifest = Manifest(
            self.name,
            settings.sha256,
            tuple(states),
            tuple(sorted(outputs, key=lambda o: output_name(self.name, o.shape[-2:]))),
            len(self._failures),
        )
        return commit_shard(
            storage, self._scratch, manifest, finished, self.failures, old, keeps=keeps
        )

    @property
    def failures(self) -> list[Failure]:
        """What failed, in the order of the input."""
        return [failure for _, failure in sorted(self._failures, key=lambda item: item[0])]

    def _output(self, number: int, part: int) -> Path:
        return self._scratch / f"output-{id(self)}-{number}-{part}"

    def discard(self) -> None:
        """Discard the shard; what is published stays."""
        for spool in self._spools.values():
            with suppress(OSError):
                spool.discard()


class PreviousRows:
    """The rows of a shard's committed version, so that none is encoded twice.

    They are copied to one scratch file, since maps of a thousand shapes would mean as many open files.
    ``replaced`` has the keys of those that were asked for, and are of another picture now; ``unreadable``
    says why a file could not be read, if one could not.
    """

    def __init__(
        self, storage: Storage, old: PreviousShard, settings: StoreSettings, scratch: Path
    ) -> None:
        self._path = scratch / "old-rows"
        self._rows: dict[tuple[str | None, str | None], tuple[LatentFile, int]] = {}
        self._known: set[str | None] = set()
        self._asked: set[str | None] = set()
        self.replaced: set[str | None] = set()
        self.unreadable = ""
        sums: defaultdict[str, set[str]] = defaultdict(set)
        for manifest in (old.pending, old.manifest):
            if manifest is not None and manifest.settings_sha256 == settings.sha256:
                for output in manifest.outputs:
                    sums[output.name].add(output.sha256)
        if not sums:
            return
        try:
            with self._path.open("wb", buffering=0) as file:
                for name, expected in sums.items():
                    try:
                        content = storage.map(name)
                        if hashlib.sha256(content).hexdigest() in expected:
                            self._keep(parse_latents(content), file)
                    except (FileNotFoundError, LatentFileError):  # its rows are encoded again
                        continue
                    except StoreError as error:  # so are these; but they may be there another time
                        self.unreadable = str(error)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error

    def _keep(self, latents: LatentFile, file: FileIO) -> None:
        for row, record in enumerate(latents.records):
            latent, start = latents.row(row), file.tell()
            if file.write(latent.values.tobytes()) == latent.values.nbytes:
                self._known.add(record.key)
                nothing = np.broadcast_to(latent.values.dtype.type(0), latent.values.shape)
                self._rows[record.key, record.source_sha256] = (
                    replace(latent, values=nothing, tool_version=__version__),
                    start,
                )

    def find(self, key: str, source_sha256: str, source: str) -> LatentFile | None:
        """Return the latent of exactly this picture, if present. Raises OutputError."""
        latent, start = self._rows.get((key, source_sha256), (None, 0))
        self._asked.add(key)
        if latent is None or latent.records[0].source != source:
            if key in self._known:
                self.replaced.add(key)
            return None
        try:
            flat = np.fromfile(self._path, latent.values.dtype, latent.values.size, offset=start)
        except OSError as error:
            raise OutputError(f"cannot read {self._path}: {error.strerror}") from error
        return replace(latent, values=flat.reshape(latent.values.shape))

    @property
    def dropped(self) -> int:
        """How many keys there are that nobody has asked for."""
        return len(self._known - self._asked)

    def __len__(self) -> int:
        return len(self._rows)


def _writable(latent: LatentFile) -> LatentFile | Failure:
    """Return the latent, or a failure if no file can hold it because its record alone is too long."""
    (record,) = latent.records
    text = f"{record.annotations}{record.preparation}"
    if len(text) * _LONGEST_ESCAPE < _most_of_a_header():
        return latent
    reason = ""
    try:
        if len(latent.header()) > _most_of_a_header():
            reason = f"its captions and metadata are too long: {len(text)} characters"
    except (LatentFileError, ValueError) as error:
        reason = str(error)
    return Failure(record.key, "encode", f"{record.source}: {reason}") if reason else latent


def _headers(first: LatentFile, records: tuple[Record, ...]) -> Iterator[tuple[int, bytes]]:
    """Yield headers that together hold all records, with their number of rows: one, or recursively two halves."""
    nothing = np.broadcast_to(first.values.dtype.type(0), (len(records), *first.values.shape))
    stacked, header = replace(first, values=nothing, records=records), b""
    with suppress(*[LatentFileError] * (len(records) > 1)):  # too long
        header = stacked.header()
    if 0 < len(header) <= _most_of_a_header() or len(records) == 1:
        yield len(records), header
        return
    half = len(records) // 2
    yield from _headers(first, records[:half])
    yield from _headers(first, records[half:])


def _most_of_a_header() -> int:
    """Return the limit, less what a flip adds: a few bytes per row."""
    return safetensors_file.MAX_HEADER_BYTES // 64 * 63


def _blocks(values: Sequence[Array] | Array, order: list[int]) -> Iterator[bytes | memoryview]:
    """Yield the values in this order; a block is valid until the next one is requested."""
    first = values[0]
    at_once = min(max(1, _BLOCK_BYTES // max(1, first.nbytes)), len(order))
    block = np.empty((at_once, *first.shape), first.dtype)
    for start in range(0, len(order), at_once):
        rows = [values[i] for i in order[start : start + at_once]]
        yield np.stack(rows, out=block[: len(rows)]).data
