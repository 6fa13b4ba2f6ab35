"""Encode the shards of a store one after the other, in this process."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from auravae_cli.errors import StoreError
from auravae_cli.files.scratch import scratch_if_needed
from auravae_cli.files.storage import Storage
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit
from auravae_cli.operations.encode_shard import RowDone, ShardOptions, encode_rows
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.sample import Kept
from auravae_cli.operations.samples import ShardReader, not_named
from auravae_cli.operations.store_work import (
    Work,
)
from auravae_cli.store.commit import (
    CHANGED_MEANWHILE,
    PreviousShard,
    ShardOutcome,
)
from auravae_cli.store.ledger import Failure, read_failures
from auravae_cli.store.settings import StoreSettings
from auravae_cli.store.shard_writer import PreviousRows, ShardWriter


class LocalRunner:
    """Encodes shards one after the other in this process."""

    workers, share = "", 1.0

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.space, self.compute_dtype = codec.space, codec.compute_dtype
        self.kernels, self.symmetry = codec.kernels, codec.symmetry

    def __enter__(self) -> LocalRunner:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def model_here(self) -> Codec:
        """Return the model that encodes."""
        return self.codec

    def encode(
        self,
        work: Iterable[Work],
        storage: Storage,
        settings: StoreSettings,
        options: ShardOptions,
        limit: FailureLimit,
    ) -> Iterator[RowDone | ShardOutcome]:
        """Encode every shard of ``work``; yield steps of progress, and an outcome per shard.

        Raises:
            TooManyFailuresError: see `FailureLimit`.
            ModelError: the model cannot run.
            OutputError, StoreError: the store cannot be written.
        """
        tried = failed = 0
        with scratch_if_needed(storage) as scratch, ThreadPoolExecutor(1) as pool:
            commit: Future[ShardOutcome] | None = None
            for item in work:
                if isinstance(item, ShardOutcome):
                    yield item
                    continue
                for step in encode_shard(*item, storage, settings, self.codec, options, scratch()):
                    if isinstance(step, RowDone):
                        tried, failed = tried + 1, failed + (step.failure is not None)
                        yield step
                        limit.check(tried, failed)
                    elif isinstance(step, ShardOutcome):
                        yield step
                    else:  # read the next shard while this one is written
                        if commit is not None:
                            yield commit.result()
                        commit = pool.submit(step)
            if commit is not None:
                yield commit.result()


def encode_shard(
    shard: InputShard,
    old: PreviousShard,
    storage: Storage,
    settings: StoreSettings,
    codec: Codec,
    options: ShardOptions,
    scratch: Path,
) -> Iterator[RowDone | ShardOutcome | partial[ShardOutcome]]:
    """Encode a shard; at the end, yield a call that commits it, or the outcome that it failed.

    Unchanged rows of an older version are reused, and those of samples not named now go on.
    """
    start = time.perf_counter()
    kept = {} if options.drops else _kept(shard, old, storage)
    rows = ShardWriter(shard.name, scratch)
    reader = ShardReader(shard, kept=kept, picture=settings.picture)
    reused = going_on = 0
    ended = False
    try:
        old_rows = PreviousRows(storage, old, settings, scratch)
        for step in encode_rows(rows, reader, codec, settings, options, old_rows):
            reused, going_on = reused + step.reused, going_on + step.kept
            yield step
        ended = True
    except (StoreError, FileNotFoundError) as error:  # the source is bad: other shards may be sound
        yield ShardOutcome(shard.name, "failed", source_size=shard.size, reason=str(error))
    finally:
        if not ended:
            rows.discard()
    if ended:
        outcome = ShardOutcome(
            *(shard.name, "done"),
            reused=reused,
            source_size=shard.size,
            kept=going_on,
            replaced=len(old_rows.replaced),
            dropped=old_rows.dropped,
        )
        yield partial(_commit, rows, reader, storage, settings, old, outcome, start)


def _kept(shard: InputShard, old: PreviousShard, storage: Storage) -> dict[str, Kept]:
    """Return the samples of a shard's older version that are not named now, by key."""
    others = not_named(shard, old.manifest) if old.manifest else {}
    failures: defaultdict[str | None, list[Failure]] = defaultdict(list)
    if others:
        with suppress(StoreError):
            for failure in read_failures(storage, shard.name):
                failures[failure.key].append(failure)
    return {key: Kept(key, states, tuple(failures[key])) for key, states in others.items()}


def _commit(
    rows: ShardWriter,
    reader: ShardReader,
    storage: Storage,
    settings: StoreSettings,
    old: PreviousShard,
    outcome: ShardOutcome,
    start: float,
) -> ShardOutcome:
    keeps = bool(reader.kept)
    made = rows.commit(storage, settings, reader.states, old, keeps=keeps)
    if made is None:
        return replace(outcome, status="failed", reason=CHANGED_MEANWHILE)
    return replace(
        outcome,
        rows=made.rows,
        failures=made.failures,
        size=made.size,
        seconds=round(time.perf_counter() - start, 3),
        passed_over=dict(reader.passed_over),
        failed=tuple(rows.failures),
    )
