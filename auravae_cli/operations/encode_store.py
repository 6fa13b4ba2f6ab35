"""Encode pictures to a store of latents, shard by shard; manifests mark finished shards."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS, STREAM
from auravae_cli.errors import InputImageError, StoreError, UsageError
from auravae_cli.files.places import is_remote
from auravae_cli.files.storage import open_storage
from auravae_cli.images.prepare import Preparation
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.machine.progress import Progress
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit
from auravae_cli.operations.encode_shard import RowDone, ShardOptions
from auravae_cli.operations.input_shards import InputShard, count_file_shards, make_shards
from auravae_cli.operations.jobs import Names, listed, place_of
from auravae_cli.operations.loading import Loading, codec_of, loading_for
from auravae_cli.operations.local_runner import LocalRunner
from auravae_cli.operations.names import none_found
from auravae_cli.operations.sources import SourceFile, find_files
from auravae_cli.operations.store_ahead import tell_ahead
from auravae_cli.operations.store_work import (
    Wanted,
    conclude,
    find_work,
    has_loose,
    require_shard_size,
)
from auravae_cli.operations.suffixes import PICTURES, TARS
from auravae_cli.store.commit import (
    ShardOutcome,
    prepare_store,
    refuse_lookalikes,
)
from auravae_cli.store.progress import follow_shards
from auravae_cli.store.settings import StoreSettings, read_settings

if TYPE_CHECKING:
    from auravae_cli.operations.ray_runner import RayRunner

SHARD_SIZE = 1000  # loose pictures a shard, about
NAME_THE_STORE = "tars, URLs and --layout shards make a store: name its folder or URL"


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
    shard_size: int | None = None,
    limit: FailureLimit = FailureLimit(),
    retry_failures: bool = False,
    prune: bool = False,
    verify: bool = False,
    picture: str | None = None,
    part: tuple[int, int] = (0, 1),
    on_ray: bool = False,
    address: str | None = None,
    progress: Progress[RowDone | ShardOutcome] | None = None,
    passed_over: Counter[str] | None = None,
    **loading: Unpack[Loading],
) -> list[ShardOutcome]:
    """Encode pictures into a store of shards; an outcome for each shard.

    Shards that are done are skipped, so a run can be started again. Pictures are added to those that the
    store has; what is named again and has changed is replaced.

    Args:
        pictures: files, folders, patterns, tars (WebDataset), or URLs of any of these.
        output: the store, a folder or a URL.
        workers: threads that decode pictures ahead of the model; None: one a core, up to 8.
        shard_size: loose pictures a shard, about (None: 1000, or as the store is); a tar is a shard of its own.
        retry_failures: also try again what failed in shards that are done.
        prune: drop what the store has and ``pictures`` does not name.
        verify: compare the checksums of all shards that are done, and make damaged ones again.
        picture: of samples with several pictures, the suffixes of the one that counts: ``depth.png;png``.
        part: ``(i, n)`` does every n-th shard, from the i-th on.
        on_ray: on a Ray cluster, at ``address`` or started on this machine; ``model`` is a name then.
        progress: called with each row and each outcome, and how many bytes of the sources are done.
        model, preparation, latent_dtype, max_pixels, batch_size, limit, passed_over,
            loading: as for `encode_files`.

    Raises:
        UsageError: nothing is there to encode, or the output is no store's place.
        ModelError, TooManyFailuresError: as `encode_files`.
        StoreError, OutputError: the store cannot be written, or is of other settings.
    """
    place = store_place(pictures, output)
    names, unreadable = [absolute(name, on_ray) for name in listed(pictures)], list[str]()
    files = files_of_store(names, passed_over, unreadable)
    if prune and unreadable:  # what is in there would be dropped
        raise StoreError(f"{unreadable[0]}: nothing is pruned as long as sources cannot be read")
    storage = open_storage(absolute(place, on_ray))
    found = read_settings(storage)
    shards, dealt = deal(files, found, shard_size, has_loose=prune and has_loose(storage))
    refuse_lookalikes((shard.name for shard in shards), storage)
    if found and shard_size:
        require_shard_size(shards, storage, shard_size, drops=prune)
    wanted = Wanted(
        frozenset(shard.name for shard in shards),
        "dropped" if prune else "kept",
        retry_failures,
        verify,
    )
    number, of = part
    shards = shards[number::of]
    loading = loading_for(found, model, loading)
    with _open_runner(model, on_ray, address, loading, progress) as runner:
        settings = StoreSettings(
            runner.space,
            StoredDtype.parse(latent_dtype),
            runner.compute_dtype,
            preparation.to_json(),
            dealt,
            runner.kernels,
            runner.symmetry,
            picture and picture.lower().replace(",", ";"),
        )
        settings = prepare_store(storage, settings)
        work = find_work(shards, storage, settings, wanted)
        options = ShardOptions(preparation, max_pixels, batch_size, workers, prune)
        tell_ahead(shards, storage, runner, options, progress)
        steps = conclude(runner.encode(work, storage, settings, options, limit), storage, wanted)
        bad = (ShardOutcome(why.partition(": ")[0], "failed", reason=why) for why in unreadable)
        steps = chain(bad, steps)
        return follow_shards(steps, sum(shard.size for shard in shards), progress)


def deal(
    files: list[SourceFile],
    found: StoreSettings | None,
    shard_size: int | None,
    *,
    has_loose: bool = False,
) -> tuple[list[InputShard], int]:
    """Return the input shards of a store, and over how many of them loose files are dealt.

    A store that is there, ``found``, has settled that. Raises UsageError if two files have one name.
    """
    dealt = found.num_file_shards if found else count_file_shards(files, shard_size or SHARD_SIZE)
    try:
        return make_shards(files, dealt, has_loose=has_loose), dealt
    except InputImageError as error:
        raise UsageError(str(error)) from error


def store_place(inputs: Names, output: str | Path | None) -> str:
    """Return the place of a store. Raises UsageError if it cannot be one, or the inputs are a stream."""
    output = place_of(output)
    if output is None or output == STREAM:
        raise UsageError(NAME_THE_STORE, "output")
    if STREAM in listed(inputs):
        raise UsageError("a store is made from files: standard input cannot be read twice")
    if not is_remote(output) and os.path.isfile(output):
        raise UsageError(f"{output}: expected a folder, and a file is there", "output")
    return output


def files_of_store(
    names: Sequence[str],
    passed_over: Counter[str] | None = None,
    unreadable: list[str] | None = None,
) -> list[SourceFile]:
    """Return the files that a store is made from; see `find_files`. Raises UsageError if there are none."""
    try:
        files = find_files(names, passed_over, unreadable)
    except InputImageError as error:
        raise UsageError(str(error)) from error
    if not files:
        raise none_found(
            names, (*PICTURES, *TARS), "pictures, tars, folders, patterns, URLs, or a list"
        )
    return files


def absolute(name: str, on_ray: bool) -> str:
    """As workers elsewhere find it, whose current folder is another."""
    return str(Path(name).absolute()) if on_ray and not is_remote(name) else name


def _open_runner(
    model: str | Codec, on_ray: bool, address: str | None, loading: Loading, progress: Any
) -> LocalRunner | RayRunner:
    if not on_ray:
        return LocalRunner(codec_of(model, ("encoder",), loading, progress))
    from auravae_cli.operations.ray_runner import RayRunner

    if not isinstance(model, str):
        raise UsageError("on a cluster, a model goes by its name or its checkpoint's path", "model")
    return RayRunner(
        absolute(model, Path(model).exists()),
        loading.get("device", "auto"),
        loading.get("dtype", "auto"),
        loading.get("memory"),
        loading.get("symmetrize", "auto"),
        address,
    )
