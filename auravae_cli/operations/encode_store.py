"""Encode pictures to a store of latents, shard by shard; manifests mark finished shards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS, STREAM
from auravae_cli.errors import InputImageError, StoreError, UsageError
from auravae_cli.files.scratch import scratch_folder
from auravae_cli.files.storage import Storage, is_remote, open_storage
from auravae_cli.images.prepare import Preparation
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.machine.progress import Progress
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit
from auravae_cli.operations.encode_shard import RowDone, ShardOptions, encode_rows
from auravae_cli.operations.input_shards import InputShard, count_file_shards, make_shards
from auravae_cli.operations.jobs import Names, listed
from auravae_cli.operations.loading import Loading, codec_of
from auravae_cli.operations.samples import ShardReader, is_done
from auravae_cli.operations.sources import SourceFile, find_files
from auravae_cli.store.commit import (
    PreviousShard,
    ShardOutcome,
    prepare_store,
    refuse_lookalikes,
)
from auravae_cli.store.format import (
    Manifest,
    StoreSettings,
    has_all,
    manifest_name,
    names_by_shard,
    read_manifest,
    read_settings,
    require_short,
)
from auravae_cli.store.progress import follow_shards
from auravae_cli.store.shard_writer import PreviousRows, ShardWriter

if TYPE_CHECKING:
    from auravae_cli.operations.ray_engine import RayEngine

SHARD_SIZE = 1000  # loose pictures a shard, about
_CHECKS_AT_ONCE = 8  # of manifests, each of which may be a request to a remote store


# A shard to encode, with its older version, or the outcome of a finished one.
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
        """Encode every shard of ``work``; yield steps of progress, and an outcome per shard.

        Raises:
            TooManyFailuresError: see `FailureLimit`.
            ModelError: the model cannot run.
            OutputError, StoreError: the store cannot be written.
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
                    else:  # read the next shard while this one is written
                        if commit is not None:
                            yield commit.result()
                        commit = pool.submit(step)
            if commit is not None:
                yield commit.result()


def find_work(
    shards: Sequence[InputShard], storage: Storage, settings: StoreSettings, *, retry_failures: bool
) -> Iterator[Work]:
    """Return for each shard its outcome if it is done, otherwise the shard with its older version.

    With ``retry_failures``, a shard with failed inputs is not done. Raises StoreError if the store does
    not distinguish the names of two shards.
    """
    present = {entry.name: entry.size for entry in storage.entries()}
    files = names_by_shard(present)
    refuse_lookalikes([*(shard.name for shard in shards), *files], storage)
    check = partial(_find_finished, storage=storage, settings=settings, present=present)
    for shard, manifest, finished in prefetch(shards, check, workers=_CHECKS_AT_ONCE):
        try:
            storage.check(shard.name)
            require_short(shard.name)
        except StoreError as error:  # it fails by itself: the others can be written
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
    """Encode a shard; at the end, yield a call that commits it, or the outcome that it failed.

    Unchanged rows of an older version are reused.
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
    except (StoreError, FileNotFoundError) as error:  # the source is bad: other shards may be sound
        yield ShardOutcome(shard.name, "failed", source_size=shard.size, reason=str(error))
    finally:
        if not ended:
            rows.discard()
    if ended:
        yield partial(_commit, rows, reader, storage, settings, old, reused, start)


def _find_finished(
    shard: InputShard, *, storage: Storage, settings: StoreSettings, present: Mapping[str, int]
) -> tuple[InputShard, Manifest | None, bool]:
    """Return the shard, its manifest if it has a sound one, and whether it is done.

    ``present`` maps the names of the store's files to their sizes.
    """
    try:
        known = manifest_name(shard.name) in present
        manifest = read_manifest(storage, shard.name) if known else None
    except StoreError:  # damaged: the shard is made again
        manifest = None
    if manifest is None or manifest.shard != shard.name:
        return shard, None, False
    try:
        done = has_all(manifest, settings, present) and is_done(shard, manifest)
        return shard, manifest, done
    except (OSError, StoreError):  # the source cannot be read: encoding reports it
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


def encode_store(
    pictures: Names,
    output: str | Path,
    *,
    model: str | Codec = DEFAULT_MODEL,
    preparation: Preparation = Preparation(),
    latent_dtype: str = "float16",
    max_pixels: int = MAX_PIXELS,
    batch_size: int | None = None,
    workers: int | None = None,
    shard_size: int = SHARD_SIZE,
    limit: FailureLimit = FailureLimit(),
    retry_failures: bool = False,
    part: tuple[int, int] = (0, 1),
    on_ray: bool = False,
    address: str | None = None,
    progress: Progress[RowDone | ShardOutcome] | None = None,
    passed_over: Counter[str] | None = None,
    **loading: Unpack[Loading],
) -> list[ShardOutcome]:
    """Encode pictures into a store of shards; an outcome for each shard.

    Shards that are done are skipped, so a run can be started again.

    Args:
        pictures: files, folders, patterns, tars (WebDataset), or URLs of any of these.
        output: the store, a folder or a URL.
        workers: threads that decode pictures ahead of the model; None: one a core, up to 8.
        shard_size: loose pictures a shard, about; a tar is a shard of its own.
        retry_failures: also try again what failed in shards that are done.
        part: ``(i, n)`` does every n-th shard, from the i-th on.
        on_ray: on a Ray cluster, at ``address`` or started on this machine; ``model`` is a name then.
        progress: hears each row and each outcome, and how many bytes of the sources are done.
        model, preparation, latent_dtype, max_pixels, batch_size, limit, passed_over,
            loading: as for `encode_files`.

    Raises:
        UsageError: nothing is there to encode, or the output is no store's place.
        ModelError, TooManyFailuresError: as `encode_files`.
        StoreError, OutputError: the store cannot be written, or is of other settings.
    """
    place = store_place(pictures, output)
    files = files_of_store([_absolute(name, on_ray) for name in listed(pictures)], passed_over)
    storage = open_storage(_absolute(place, on_ray))
    found = read_settings(storage)
    dealt = found.num_file_shards if found else count_file_shards(files, shard_size)
    try:
        shards = make_shards(files, dealt)
    except InputImageError as error:
        raise UsageError(str(error)) from error
    refuse_lookalikes((shard.name for shard in shards), storage)
    number, of = part
    shards = shards[number::of]
    with _open_engine(model, on_ray, address, loading, progress) as engine:
        settings = StoreSettings(
            engine.space,
            StoredDtype.parse(latent_dtype),
            engine.compute_dtype,
            preparation.to_json(),
            dealt,
            engine.kernels,
            engine.symmetry,
        )
        settings = prepare_store(storage, settings)
        work = find_work(shards, storage, settings, retry_failures=retry_failures)
        options = ShardOptions(preparation, max_pixels, batch_size, workers)
        steps = engine.encode(work, storage, settings, options, limit)
        return follow_shards(steps, sum(shard.size for shard in shards), progress)


def store_place(inputs: Names, output: str | Path | None) -> str:
    """Return the place of a store. Raises UsageError if it cannot be one, or the inputs are a stream."""
    if output is None or str(output) == STREAM:
        raise UsageError("a store is a folder or a URL: name it", "output")
    if STREAM in listed(inputs):
        raise UsageError("a store is made from files: standard input cannot be read twice")
    return str(output)


def files_of_store(
    names: Iterable[str], passed_over: Counter[str] | None = None
) -> list[SourceFile]:
    """Return the files that a store is made from. Raises UsageError if there are none."""
    try:
        files = find_files(names, passed_over)
    except InputImageError as error:
        raise UsageError(str(error)) from error
    if not files:
        raise UsageError("no input: expected tars, folders, patterns, URLs, or a list")
    return files


def _absolute(name: str, on_ray: bool) -> str:
    """As workers elsewhere find it, whose current folder is another."""
    return str(Path(name).absolute()) if on_ray and not is_remote(name) else name


def _open_engine(
    model: str | Codec, on_ray: bool, address: str | None, loading: Loading, progress: Any
) -> LocalEngine | RayEngine:
    if not on_ray:
        return LocalEngine(codec_of(model, ("encoder",), loading, progress))
    from auravae_cli.operations.ray_engine import RayEngine

    if not isinstance(model, str):
        raise UsageError("on a cluster, a model goes by its name or its checkpoint's path", "model")
    return RayEngine(
        _absolute(model, Path(model).exists()),
        loading.get("device", "auto"),
        loading.get("dtype", "auto"),
        loading.get("memory"),
        loading.get("symmetrize", "auto"),
        address,
    )
