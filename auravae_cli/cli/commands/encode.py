"""auravae encode"""

from __future__ import annotations

from functools import partial

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS

INTERVAL, SHARD_SIZE = 1.0, 1000  # where nothing else is asked for


def encode(
    photos: opt.Pictures = None,
    output: opt.Output = None,
    model: opt.Model = DEFAULT_MODEL,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRunOption = False,
    listed: opt.From = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    watch: opt.Watch = False,
    interval: opt.Interval = None,
    crop: opt.Crop = None,
    resize: opt.Resize = None,
    center_crop: opt.CenterCrop = None,
    buckets: opt.BucketsOption = None,
    pad: opt.PadOption = opt.Pad.edge,
    background: opt.Background = "white",
    symmetrize: opt.Symmetrize = opt.Symmetry.auto,
    store: opt.Store = opt.StoredDtypeName.float16,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
    batch_size: opt.BatchSize = None,
    max_failures: opt.MaxFailures = None,
    layout: opt.LayoutOption = opt.Layout.auto,
    shard_size: opt.ShardSize = None,
    workers: opt.Workers = None,
    retry_failures: opt.RetryFailures = False,
    shard_index: opt.ShardIndex = None,
    num_shards: opt.NumShards = None,
    runner: opt.RunnerOption = opt.Runner.local,
    address: opt.Address = None,
) -> None:
    """Encode pictures to latents: photo.jpg => photo.safetensors.

    Examples:

        auravae encode photo.jpg
        auravae encode photos -o latents --resize 512

    Pictures keep their exact size: sides that are not multiples of 8 are
    padded, and decode crops the padding. Finished latents are skipped, so an
    interrupted batch can be run again.

    Tars of pictures (WebDataset), URLs and --layout shards make a store:
    stacked latents with captions and labels, which any number of machines can
    fill, and which a crash never leaves half-written.

    --watch keeps the model loaded, and encodes the pictures in the folders and
    those that appear there, as soon as they are complete. SIGINT and SIGTERM
    end it with exit code 0.
    """
    from auravae_cli.cli.reports.jobs import plan_jobs
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.cli.shared.parsing import read_limit, read_preparation
    from auravae_cli.cli.shared.sizes import read_size
    from auravae_cli.latents.dtypes import STORED_DTYPES

    reporter = Reporter(as_json, quiet)
    preparation = read_preparation(crop, resize, center_crop, pad.value, background, buckets)
    stored_dtype = STORED_DTYPES[store.value]
    limit = read_limit(max_failures)
    budget = read_size(memory, "--memory")
    is_part = shard_index is not None or num_shards is not None
    if watch and (listed or dry_run or is_part or _wants_store(photos or [], output, layout)):
        raise typer.BadParameter(
            "a latent file for each picture of the folders named: no store, list, dry run or part of the work",
            param_hint="--watch",
        )
    if interval is not None and not watch:
        raise typer.BadParameter("how often to look: add --watch", param_hint="--interval")
    job, num_jobs = _part_of_the_work(shard_index, num_shards)
    names = opt.read_names(photos, listed)  # what they look like decides the layout
    if _wants_store(names, output, layout):
        if address is not None and runner is not opt.Runner.ray:
            raise typer.BadParameter("of a Ray cluster: add --runner ray", param_hint="--address")
        from auravae_cli.cli.commands.encode_store import StoreRequest, encode_to_store
        from auravae_cli.operations.encode_shard import ShardOptions

        request = StoreRequest(
            names=names,
            output=output,
            model=model,
            device=device,
            compute_dtype=dtype.value,
            memory=budget,
            symmetrize=symmetrize.value,
            stored_dtype=stored_dtype,
            options=ShardOptions(preparation, max_pixels, batch_size, workers),
            overwrite=overwrite,
            shard_size=shard_size or SHARD_SIZE,
            limit=limit,
            retry_failures=retry_failures,
            shard_index=job,
            num_shards=num_jobs,
            on_ray=runner is opt.Runner.ray,
            address=address,
            dry_run=dry_run,
        )
        raise typer.Exit(encode_to_store(request, reporter))

    _refuse_for_files(
        {
            "--shard-size": shard_size is not None,
            "--workers": workers is not None,
            "--retry-failures": retry_failures,
            "--runner": runner is opt.Runner.ray,
            "--address": address is not None,
        }
    )
    from auravae_cli.model.codec import load_codec
    from auravae_cli.operations.encode import EncodeOptions, encode_files

    load = partial(
        load_codec,
        model,
        parts=("encoder",),
        device=device,
        dtype=dtype.value,
        memory=budget,
        symmetrize=symmetrize.value,
    )
    options = EncodeOptions(preparation, stored_dtype, max_pixels, overwrite)
    if watch:
        from auravae_cli.cli.commands.watch import watch_folders

        watch_folders(
            names, output, interval or INTERVAL, load, options, batch_size, limit, reporter
        )
        raise typer.Exit()
    from auravae_cli.operations.batches import limited
    from auravae_cli.operations.suffixes import LATENTS, PICTURE_TAGS, PICTURES

    jobs = plan_jobs(
        names,
        output,
        input_suffixes=PICTURES,
        suffix=".safetensors",
        tag="",
        output_suffixes=LATENTS,
        result_tags=PICTURE_TAGS,
        reporter=reporter,
    )[job::num_jobs]
    if dry_run:
        from auravae_cli.cli.reports.dry_run import DryRun
        from auravae_cli.forecast.dry_run import forecast_pictures
        from auravae_cli.operations.timed_batches import ENCODE_PARTS

        dry = DryRun(
            "encode",
            ENCODE_PARTS,
            reporter,
            device,
            dtype.value,
            budget,
            batch_size,
            symmetrize.value,
        )
        setting = dry.setting(model)
        rows = forecast_pictures(
            jobs, dry.forecaster, setting, preparation, max_pixels, keeps=not overwrite
        )
        raise typer.Exit(dry.report(rows, len(jobs)))
    outcomes = limited(encode_files(jobs, load(), options, batch_size), limit)
    raise typer.Exit(reporter.run(outcomes, len(jobs)))


def _part_of_the_work(shard_index: int | None, num_shards: int | None) -> tuple[int, int]:
    """The number of this job, and of all jobs; typer.BadParameter where one is missing."""
    if shard_index is None and num_shards is None:
        return 0, 1
    if shard_index is None or num_shards is None:
        raise typer.BadParameter(
            "job I of N jobs that share the work takes both; --shard-size sets how large shards are",
            param_hint="--shard-index I --num-shards N",
        )
    if shard_index >= num_shards:
        raise typer.BadParameter(
            f"{shard_index}: expected less than --num-shards, {num_shards}",
            param_hint="--shard-index",
        )
    return shard_index, num_shards


def _refuse_for_files(given: dict[str, bool]) -> None:
    """End with a usage error where an option is given that only a store has a use for."""
    for option, is_given in given.items():
        if is_given:
            raise typer.BadParameter(
                "only a store of shards has a use for it: add --layout shards", param_hint=option
            )


def _wants_store(names: list[str], output: str | None, layout: opt.Layout) -> bool:
    """Whether the result is a store: as asked for, else by what the names look like."""
    if layout is not opt.Layout.auto:
        return layout is opt.Layout.shards
    from auravae_cli.operations.sources import is_tar
    from auravae_cli.store.format import is_store

    if any("://" in name or is_tar(name) for name in [*names, output or ""]):
        return True
    return output is not None and is_store(output)
