"""Pictures => a store of latents, shard by shard. What is finished is known by its manifest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

from auravae_cli.errors import StoreError
from auravae_cli.files.scratch import scratch_folder
from auravae_cli.files.storage import Storage
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit
from auravae_cli.operations.encode_shard import RowDone, ShardOptions, encode_rows
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.samples import ShardReader, is_done
from auravae_cli.store.commit import PreviousShard, ShardOutcome, refuse_lookalikes
from auravae_cli.store.format import (
    Manifest,
    StoreSettings,
    has_all,
    manifest_name,
    names_by_shard,
    read_manifest,
    require_short,
)
from auravae_cli.store.shard_writer import PreviousRows, ShardWriter

_CHECKS_AT_ONCE = 8  # of manifests, each of which may be a request to a remote store


# A shard to be encoded, with what there is of an older version; or what became of a finished one.
Work: TypeAlias = tuple[InputShard, PreviousShard] | ShardOutcome


class LocalEngine:
    """Encodes shards one after the other in this process."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.space, self.compute_dtype = codec.space, codec.compute_dtype
        self.kernels, self.symmetry = codec.kernels, codec.symmetry

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def encode(
        self,
        work: Iterable[Work],
        storage: Storage,
        settings: StoreSettings,
        options: ShardOptions,
        limit: FailureLimit,
    ) -> Iterator[RowDone | ShardOutcome]:
        """Encode every shard of ``work``; steps of progress, and an outcome for each shard.

        Raises:
            TooManyFailuresError: see `FailureLimit`. ModelError: the model cannot run.
            OutputError, StoreError: the store takes no more.
        """
        tried = failed = 0
        with scratch_folder(storage) as scratch, ThreadPoolExecutor(1) as pool:
            commit: Future[ShardOutcome] | None = None
            for item in work:
                if isinstance(item, ShardOutcome):
                    yield item
                    continue
                for step in encode_shard(*item, storage, settings, self._codec, options, scratch):
                    if isinstance(step, RowDone):
                        tried, failed = tried + 1, failed + (step.failure is not None)
                        yield step
                        limit.check(tried, failed)
                    elif isinstance(step, ShardOutcome):
                        yield step
                    else:  # the next shard is read while this one is written
                        if commit is not None:
                            yield commit.result()
                        commit = pool.submit(step)
            if commit is not None:
                yield commit.result()


def find_work(
    shards: Sequence[InputShard], storage: Storage, settings: StoreSettings, *, retry_failures: bool
) -> Iterator[Work]:
    """For each shard what it needs: its outcome where it is done, else itself with what there is.

    With ``retry_failures``, a shard in which inputs failed is not done. Raises StoreError where the
    store would take two shards for one.
    """
    present = {entry.name: entry.size for entry in storage.entries()}
    files = names_by_shard(present)
    refuse_lookalikes([*(shard.name for shard in shards), *files], storage)
    check = partial(_find_finished, storage=storage, settings=settings, present=present)
    for shard, manifest, finished in prefetch(shards, check, workers=_CHECKS_AT_ONCE):
        try:
            storage.check(shard.name)
            require_short(shard.name)
        except StoreError as error:  # it costs itself: the others can be written
            yield ShardOutcome(shard.name, "failed", source_size=shard.size, reason=str(error))
            continue
        if manifest and finished and not (retry_failures and manifest.failures):
            yield ShardOutcome(
                shard.name,
                "skipped",
                manifest.rows,
                manifest.failures,
                0,
                manifest.size,
                shard.size,
            )
        else:
            yield shard, PreviousShard(manifest, tuple(files.get(shard.name, ())))


def encode_shard(
    shard: InputShard,
    old: PreviousShard,
    storage: Storage,
    settings: StoreSettings,
    codec: Codec,
    options: ShardOptions,
    scratch: Path,
) -> Iterator[RowDone | ShardOutcome | partial[ShardOutcome]]:
    """Encode a shard; in the end a call that commits it, or the outcome that it failed.

    Rows of an older version are taken over where they are the same.
    """
    start = time.perf_counter()
    rows, reader = ShardWriter(shard.name, scratch), ShardReader(shard)
    reused, ended = 0, False
    try:
        old_rows = PreviousRows(storage, old.manifest, settings, scratch)
        for step in encode_rows(rows, reader, codec, settings, options, old_rows):
            reused += step.reused
            yield step
        ended = True
    except (StoreError, FileNotFoundError) as error:  # the source: other shards may be sound
        yield ShardOutcome(shard.name, "failed", source_size=shard.size, reason=str(error))
    finally:
        if not ended:
            rows.discard()
    if ended:
        yield partial(_commit, rows, reader, storage, settings, old, reused, start)


def _find_finished(
    shard: InputShard, *, storage: Storage, settings: StoreSettings, present: Mapping[str, int]
) -> tuple[InputShard, Manifest | None, bool]:
    """The shard, its manifest if it has a sound one, and whether it is done.

    ``present`` maps the names of the store's files to their sizes.
    """
    try:
        known = manifest_name(shard.name) in present
        manifest = read_manifest(storage, shard.name) if known else None
    except StoreError:  # damaged: whatever it said, the shard is made again
        manifest = None
    if manifest is None or manifest.shard != shard.name:
        return shard, None, False
    try:
        done = has_all(manifest, settings, present) and is_done(shard, manifest)
        return shard, manifest, done
    except (OSError, StoreError):  # the source cannot be read: encoding says so
        return shard, manifest, False


def _commit(
    rows: ShardWriter,
    reader: ShardReader,
    storage: Storage,
    settings: StoreSettings,
    old: PreviousShard,
    reused: int,
    start: float,
) -> ShardOutcome:
    made = rows.commit(storage, settings, reader.states, old)
    return ShardOutcome(
        reader.shard.name,
        "done",
        made.rows,
        made.failures,
        reused,
        made.size,
        reader.shard.size,
        round(time.perf_counter() - start, 3),
        passed_over=dict(reader.passed_over),
    )
