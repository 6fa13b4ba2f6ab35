"""auravae encode, where the result is a store: from options to shards, and what is said of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from auravae_cli.cli.reports.outcomes import Reporter
from auravae_cli.cli.reports.store_progress import StoreReporter
from auravae_cli.errors import InputImageError
from auravae_cli.files.storage import Storage, is_remote, open_storage
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.model.codec import load_codec
from auravae_cli.operations.batches import FailureLimit
from auravae_cli.operations.encode_shard import ShardOptions
from auravae_cli.operations.encode_store import LocalEngine, find_work
from auravae_cli.operations.input_shards import InputShard, count_file_shards, make_shards
from auravae_cli.operations.inputs import STREAM
from auravae_cli.operations.sources import SourceFile, find_files
from auravae_cli.store.commit import prepare_store, refuse_lookalikes
from auravae_cli.store.format import StoreSettings, read_settings

if TYPE_CHECKING:
    from auravae_cli.operations.ray_engine import RayEngine


@dataclass(frozen=True)
class StoreRequest:
    """What the user asked for, as parsed."""

    names: list[str]
    output: str | None
    model: str
    device: str
    compute_dtype: str
    memory: int | None
    symmetrize: str
    stored_dtype: StoredDtype
    options: ShardOptions
    overwrite: bool
    shard_size: int
    limit: FailureLimit
    retry_failures: bool
    shard_index: int
    num_shards: int
    on_ray: bool
    address: str | None
    dry_run: bool = False


def encode_to_store(request: StoreRequest, reporter: Reporter) -> int:
    """Encode into a store; the exit code."""
    output = _absolute(_output(request), request)
    try:
        passed_over = Counter[str]()
        files = find_files([_absolute(name, request) for name in request.names], passed_over)
        reporter.tell_passed_over(passed_over)
    except InputImageError as error:
        raise typer.BadParameter(str(error)) from error
    if not files:
        raise typer.BadParameter("no input: expected tars, folders, patterns, URLs, or a list")
    if request.dry_run:
        return _forecast(files, request, reporter)
    storage = open_storage(output)
    found = read_settings(storage)
    dealt = found.num_file_shards if found else count_file_shards(files, request.shard_size)
    shards = _own_shards(files, dealt, storage, request)
    with _open_engine(request) as engine:
        settings = StoreSettings(
            engine.space,
            request.stored_dtype,
            engine.compute_dtype,
            request.options.preparation.to_json(),
            dealt,
            engine.kernels,
            engine.symmetry,
        )
        settings = prepare_store(storage, settings)
        work = find_work(shards, storage, settings, retry_failures=request.retry_failures)
        steps = engine.encode(work, storage, settings, request.options, request.limit)
        return StoreReporter(reporter, storage.root, sum(shard.size for shard in shards)).run(steps)


def _forecast(files: list[SourceFile], request: StoreRequest, reporter: Reporter) -> int:
    """What all files take, whatever shards are done already; the exit code."""
    from auravae_cli.cli.reports.dry_run import DryRun
    from auravae_cli.forecast.dry_run import forecast_store
    from auravae_cli.operations.timed_batches import ENCODE_PARTS

    options = request.options
    dry = DryRun(
        "encode",
        ENCODE_PARTS,
        reporter,
        request.device,
        request.compute_dtype,
        request.memory,
        options.batch_size,
        request.symmetrize,
    )
    setting = dry.setting(request.model)
    rows = forecast_store(files, dry.forecaster, setting, options.preparation, options.max_pixels)
    return dry.report(rows, len(files))


def _own_shards(
    files: list[SourceFile], dealt: int, storage: Storage, request: StoreRequest
) -> list[InputShard]:
    """This job's. Raises StoreError where those of all jobs cannot lie beside each other."""
    try:
        shards = make_shards(files, dealt)
    except InputImageError as error:
        raise typer.BadParameter(str(error)) from error
    refuse_lookalikes((shard.name for shard in shards), storage)
    return shards[request.shard_index :: request.num_shards]


def _output(request: StoreRequest) -> str:
    if request.output is None or request.output == STREAM:
        raise typer.BadParameter("a store is a folder or a URL: name it", param_hint="--output")
    if STREAM in request.names:
        raise typer.BadParameter("a store is made from files: standard input cannot be read twice")
    if request.overwrite:
        raise typer.BadParameter(
            "a store is gone on with or refused, never overwritten: remove it, or name another",
            param_hint="--overwrite",
        )
    return request.output


def _absolute(name: str, request: StoreRequest) -> str:
    """As workers elsewhere find it, whose current folder is another."""
    return str(Path(name).absolute()) if request.on_ray and not is_remote(name) else name


def _open_engine(request: StoreRequest) -> LocalEngine | RayEngine:
    if request.on_ray:
        from auravae_cli.operations.ray_engine import RayEngine

        model = _absolute(request.model, request) if Path(request.model).exists() else request.model
        return RayEngine(
            model,
            request.device,
            request.compute_dtype,
            request.memory,
            request.symmetrize,
            request.address,
        )
    codec = load_codec(
        request.model,
        parts=("encoder",),
        device=request.device,
        dtype=request.compute_dtype,
        memory=request.memory,
        symmetrize=request.symmetrize,
    )
    return LocalEngine(codec)
