"""Import files of another project to a store of shards, as encode fills one.

::

    files --deal--> input shards --Format.find--> latents --adopt--> rows --commit--> shard, manifest
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

from auravae_cli.errors import InputImageError, LatentFileError, UsageError, reason_of
from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.formats.base import Foreign, Format, Found
from auravae_cli.exchange.import_files import name_by_file, open_foreign, plan_import
from auravae_cli.exchange.import_plan import count_file_shards, deal, first_latent, settings_for
from auravae_cli.exchange.store_keys import StoreKeys
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import MOST_READ
from auravae_cli.files.scratch import scratch_if_needed
from auravae_cli.files.storage import Storage, open_storage
from auravae_cli.latents.latent_file import LatentFile, LatentSpace
from auravae_cli.machine.progress import Progress
from auravae_cli.operations.encode_shard import RowDone
from auravae_cli.operations.encode_store import SHARD_SIZE
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.jobs import Names
from auravae_cli.operations.sources import SourceFile
from auravae_cli.operations.store_work import (
    Wanted,
    Work,
    conclude,
    find_work,
    require_shard_size,
)
from auravae_cli.store.commit import (
    CHANGED_MEANWHILE,
    PreviousShard,
    ShardOutcome,
    prepare_store,
)
from auravae_cli.store.ledger import Failure
from auravae_cli.store.manifest import SourceState
from auravae_cli.store.progress import follow_shards
from auravae_cli.store.settings import StoreSettings, read_settings
from auravae_cli.store.shard_writer import ShardWriter

_PIECE = 16 << 20  # hashed at once


@dataclass
class StoreImporter:
    """Imports shards; afterwards ``ignored`` counts what was not imported."""

    form: Format
    adopt: LatentImporter
    storage: Storage
    settings: StoreSettings
    ignored: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._keys = StoreKeys(self.storage)

    def run(self, work: Iterable[Work]) -> Iterator[RowDone | ShardOutcome]:
        """Import every shard of ``work``; yield steps of progress, and an outcome per shard.

        Raises OutputError or StoreError if the store cannot be written.
        """
        with scratch_if_needed(self.storage) as scratch, ExitStack() as threads:
            hasher, writer = (threads.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
            before = None  # the shard that is written while the next one is read
            for item in work:
                if isinstance(item, ShardOutcome):
                    yield item
                    continue
                filled = yield from self._filled(item, scratch(), hasher)
                try:
                    if before is not None:
                        yield before.result()
                except BaseException:
                    filled.rows.discard()
                    raise
                before = writer.submit(self._committed, filled)
            if before is not None:
                yield before.result()

    def _filled(
        self, work: tuple[InputShard, PreviousShard], scratch: Path, hasher: ThreadPoolExecutor
    ) -> Generator[RowDone, None, _Filled]:
        """Read a shard; yield a step per latent."""
        (shard, old), start = work, time.perf_counter()
        rows, states = ShardWriter(shard.name, scratch), list[SourceState]()
        index, ended = 0, False
        self._keys.begin(shard.name)
        try:
            for item in chain.from_iterable(self._read(file, hasher) for file in shard.files):
                if isinstance(item, SourceState):
                    states.append(item)
                    continue
                if isinstance(item, _Adopted):
                    self.ignored.update(item.found.ignored)
                    if item.latent is None:
                        self.ignored["flipped copy"] += 1
                        continue
                row = rows.add(index, self._row(item))
                index += 1
                yield RowDone(0, row if isinstance(row, Failure) else None)
            ended = True
        finally:
            if not ended:
                rows.discard()
        return _Filled(shard, old, rows, states, start)

    def _committed(self, filled: _Filled) -> ShardOutcome:
        """Write a shard that was read."""
        shard, rows = filled.shard, filled.rows
        made = rows.commit(self.storage, self.settings, filled.states, filled.old)
        if made is None:
            return ShardOutcome(
                shard.name, "failed", source_size=shard.size, reason=CHANGED_MEANWHILE
            )
        seconds = round(time.perf_counter() - filled.start, 3)
        return ShardOutcome(
            *(shard.name, "done", made.rows, made.failures, 0, made.size, shard.size, seconds),
            failed=tuple(rows.failures),
        )

    def _read(
        self, file: SourceFile, hasher: ThreadPoolExecutor
    ) -> Iterator[SourceState | _Adopted | Failure]:
        """Yield every latent in a file, or a failure; and the file's state, if it could be read."""
        try:
            foreign = open_foreign(file.root, file.entry.name)
        except (LatentFileError, MemoryError) as error:
            yield Failure(file.key, "read", f"{file.key}: {reason_of(error)}")
            return
        with _digest(foreign.content, hasher) as digest:
            try:
                yield from self._latents(file, foreign)
            except (LatentFileError, MemoryError) as error:
                yield Failure(file.key, "read", f"{file.key}: {reason_of(error)}")
                if FILE_BYTES.excess(len(foreign.content)):
                    return  # a sparse file of a terabyte would take an hour, every time
            yield SourceState(file.key, file.entry.size, file.entry.version, digest())

    def _latents(self, file: SourceFile, foreign: Foreign) -> Iterator[_Adopted | Failure]:
        count = 0
        for found in self.form.find(foreign):
            count += 1
            try:
                latent = None if found.is_copy else self.adopt(found)
            except (LatentFileError, MemoryError) as error:
                yield self._failure(file, found, error)
                continue
            is_map = isinstance(foreign.content, memoryview) and not self.form.holds_many(file.key)
            if is_map and latent is not None:  # otherwise each row would hold a map
                latent = replace(latent, values=latent.values.copy())
            other = partial(name_by_file, file.entry.name, self.form, count)
            yield _Adopted(file, found, latent, other)
        if not count:
            yield Failure(file.key, "read", f"{file.key}: no latent in it")

    def _failure(self, file: SourceFile, found: Found, error: Exception) -> Failure:
        """Return the failure of one latent; in a file of many, the reason names it."""
        place = f"{file.key}: {found.name}" if self.form.holds_many(file.key) else file.key
        return Failure(found.name, "read", f"{place}: {reason_of(error)}")

    def _row(self, item: _Adopted | Failure) -> LatentFile | Failure:
        if isinstance(item, Failure):
            return item
        assert item.latent is not None
        try:
            return self._keyed(item.latent, item)
        except LatentFileError as error:
            return self._failure(item.file, item.found, error)

    def _keyed(self, latent: LatentFile, item: _Adopted) -> LatentFile:
        """Return the latent with a key that is unique in the store. Raises LatentFileError."""
        _same(latent.space, self.settings.space)
        if latent.dtype != self.settings.stored_dtype:
            raise LatentFileError(
                f"values are {latent.dtype.name}, the store's are {self.settings.stored_dtype.name}: "
                "say --latent-dtype to have all in one dtype"
            )
        (record,) = latent.records
        wanted = record.key or item.found.name
        key = next(filter(self._keys.take, _names(wanted, item)), None)
        if key is None:
            raise LatentFileError(
                f"another latent has the key {wanted!r}: name one of them otherwise"
            )
        if record.key == key and latent.space == self.settings.space:
            return latent
        records = (replace(record, key=key),)
        return replace(latent, space=self.settings.space, records=records)


@dataclass(frozen=True)
class _Filled:
    """A shard that was read: its rows, the states of its files, and when that began."""

    shard: InputShard
    old: PreviousShard
    rows: ShardWriter
    states: list[SourceState]
    start: float


@dataclass(frozen=True)
class _Adopted:
    """A latent in a file; None if it is the flipped copy of another."""

    file: SourceFile
    found: Found
    latent: LatentFile | None
    other: Callable[[], str]  # its name if the first one is taken


def _names(wanted: str, item: _Adopted) -> Iterator[str]:
    """Yield the names that a latent may have, the best one first."""
    yield wanted
    yield item.found.name
    yield item.other()


@contextmanager
def _digest(content: bytes | memoryview, hasher: ThreadPoolExecutor) -> Iterator[Callable[[], str]]:
    """Yield a call that returns the sha256: for a large file it is computed while its latents are read, or abandoned."""
    given_up = threading.Event()

    def take() -> str:
        digest = hashlib.sha256()
        for start in range(0, len(content), _PIECE):
            if given_up.is_set():
                break
            digest.update(content[start : start + _PIECE])
        return digest.hexdigest()

    if len(content) <= MOST_READ:
        yield take
        return
    try:
        yield hasher.submit(take).result
    finally:
        given_up.set()


def _same(space: LatentSpace, expected: LatentSpace) -> None:
    if not space.is_same(expected):
        raise LatentFileError(
            f"latent of model {space.model!r} ({space.weights_sha256[:12]}, {space.irreps}), but the "
            f"store holds those of {expected.model!r} ({expected.weights_sha256[:12]}, {expected.irreps})"
        )


@dataclass(frozen=True)
class ImportedStore:
    """The result of an import: an outcome per shard, and the counts of what was not imported."""

    outcomes: list[ShardOutcome]
    not_taken: Counter[str]


def import_store(
    files: Names,
    output: str | Path,
    of: str,
    *,
    assume_model: str | None = None,
    latent_dtype: str | None = None,
    shard_size: int | None = None,
    retry_failures: bool = False,
    progress: Progress[RowDone | ShardOutcome] | None = None,
) -> ImportedStore:
    """Import latents of another project into a store of shards; shards that are done are skipped.

    Args:
        output: a folder or a URL.
        shard_size: files of one latent that go into a shard, about; others are a shard each.
        retry_failures: also try again what failed in shards that are done.
        progress: called with each row and each outcome, and how many bytes of the files are done.
        files, of, assume_model, latent_dtype: as for `import_files`.

    Raises:
        UsageError, ModelError: as `import_files`. LatentFileError: no file can be imported.
        StoreError, OutputError: the store cannot be written, or is of other settings.
    """
    form, sources, adopt = plan_import(files, of, assume_model, latent_dtype)
    storage = open_storage(str(output))
    found = read_settings(storage)
    dealt = (
        found.num_file_shards
        if found
        else count_file_shards(sources, form, shard_size or SHARD_SIZE)
    )
    try:
        shards = deal(sources, form, dealt)
    except InputImageError as error:
        raise UsageError(str(error)) from error
    if found and shard_size:
        require_shard_size(shards, storage, shard_size, counts=lambda _: True)
    settings = settings_for(first_latent(sources, form, adopt), form, dealt)
    settings = prepare_store(storage, settings)
    importer = StoreImporter(form, adopt, storage, settings)
    wanted = Wanted(frozenset(shard.name for shard in shards), "refused", retry_failures)
    steps = conclude(importer.run(find_work(shards, storage, settings, wanted)), storage, wanted)
    size = sum(shard.size for shard in shards)
    return ImportedStore(follow_shards(steps, size, progress), importer.ignored)
