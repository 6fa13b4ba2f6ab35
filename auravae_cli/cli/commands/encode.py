"""auravae encode"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS

if TYPE_CHECKING:
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.images.prepare import Preparation
    from auravae_cli.operations.batches import FailureLimit
    from auravae_cli.operations.loading import Loading

INTERVAL = 1.0  # seconds


@dataclass(frozen=True)
class EncodeRequest:
    """What the user asked for, as parsed, for any layout of the result."""

    preparation: Preparation
    loading: Loading
    limit: FailureLimit
    model: str
    latent_dtype: str
    max_pixels: int
    batch_size: int | None
    overwrite: bool
    part: tuple[int, int]


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
    buckets_of: opt.BucketsOfOption = None,
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
    picture: opt.WhichPicture = None,
    workers: opt.Workers = None,
    retry_failures: opt.RetryFailures = False,
    prune: opt.Prune = False,
    verify: opt.VerifyStore = False,
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
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.cli.shared.parsing import (
        read_limit,
        read_loading,
        read_preparation,
    )

    asked = EncodeRequest(
        preparation=read_preparation(
            crop, resize, center_crop, pad.value, background, buckets, buckets_of
        ),
        loading=read_loading(device, dtype, memory, symmetrize),
        limit=read_limit(max_failures),
        model=model,
        latent_dtype=store.value,
        max_pixels=max_pixels,
        batch_size=batch_size,
        overwrite=overwrite,
        part=(0, 1),
    )
    reporter = Reporter(as_json, quiet)
    is_part = shard_index is not None or num_shards is not None
    if watch and (listed or dry_run or is_part or _wants_store(photos or [], output, layout)):
        raise typer.BadParameter(
            "it makes a latent file for each picture of the folders: no store, list, dry run or part of the work",
            param_hint="--watch",
        )
    if interval is not None and not watch:
        raise typer.BadParameter("it only applies to --watch: add that", param_hint="--interval")
    asked = replace(asked, part=_part_of_the_work(shard_index, num_shards))
    names = opt.read_names(photos, listed)  # their form determines the layout
    if _wants_store(names, output, layout):
        if address is not None and runner is not opt.Runner.ray:
            raise typer.BadParameter(
                "it is for a Ray cluster: add --runner ray", param_hint="--address"
            )
        from auravae_cli.cli.commands.encode_store import StoreRequest, fill_store, predict_store

        wanted = StoreRequest(
            shard_size,
            workers,
            retry_failures,
            prune,
            verify,
            picture,
            runner is opt.Runner.ray,
            address,
        )
        if dry_run:
            raise typer.Exit(predict_store(names, output, asked, wanted, reporter))
        raise typer.Exit(fill_store(names, output, asked, wanted, reporter))
    _refuse_for_files(
        {
            "--shard-size": shard_size is not None,
            "--workers": workers is not None,
            "--retry-failures": retry_failures,
            "--prune": prune,
            "--verify": verify,
            "--picture": picture is not None,
            "--runner": runner is opt.Runner.ray,
            "--address": address is not None,
        }
    )
    if watch:
        from auravae_cli.cli.commands.watch import follow_folders

        follow_folders(names, output, interval or INTERVAL, asked, reporter)
        raise typer.Exit()
    reporter.data_on_stdout = opt.data_on_stdout(names, output)
    raise typer.Exit((_predict if dry_run else _encode)(names, output, asked, reporter))


def _encode(names: list[str], output: str | None, asked: EncodeRequest, reporter: Reporter) -> int:
    from auravae_cli.operations.encode import encode_files

    with reporter:
        encode_files(
            names,
            output,
            model=asked.model,
            preparation=asked.preparation,
            latent_dtype=asked.latent_dtype,
            max_pixels=asked.max_pixels,
            batch_size=asked.batch_size,
            overwrite=asked.overwrite,
            part=asked.part,
            limit=asked.limit,
            progress=reporter,
            passed_over=reporter.passed_over,
            **asked.loading,
        )
    return reporter.code


def _predict(names: list[str], output: str | None, asked: EncodeRequest, reporter: Reporter) -> int:
    from auravae_cli.cli.reports.dry_run import DryRunReporter
    from auravae_cli.forecast.predict import predict_encode

    with DryRunReporter(reporter, "encode") as report:
        predict_encode(
            names,
            output,
            model=asked.model,
            preparation=asked.preparation,
            max_pixels=asked.max_pixels,
            batch_size=asked.batch_size,
            overwrite=asked.overwrite,
            part=asked.part,
            calibrating=report.calibrating,
            progress=report,
            passed_over=reporter.passed_over,
            **asked.loading,
        )
    return reporter.code


def _part_of_the_work(shard_index: int | None, num_shards: int | None) -> tuple[int, int]:
    """Return the number of this job, and of all jobs. Raises typer.BadParameter if one is missing."""
    if shard_index is None and num_shards is None:
        return 0, 1
    if shard_index is None or num_shards is None:
        raise typer.BadParameter(
            "job I of N jobs needs both; --shard-size sets the size of shards",
            param_hint="--shard-index I --num-shards N",
        )
    if shard_index >= num_shards:
        raise typer.BadParameter(
            f"{shard_index}: expected less than --num-shards, {num_shards}",
            param_hint="--shard-index",
        )
    return shard_index, num_shards


def _refuse_for_files(given: dict[str, bool]) -> None:
    """Raise typer.BadParameter if an option is given that only applies to a store."""
    for option, is_given in given.items():
        if is_given:
            raise typer.BadParameter(
                "it only applies to a store of shards: add --layout shards", param_hint=option
            )


def _wants_store(names: list[str], output: str | None, layout: opt.Layout) -> bool:
    """Return whether the result is a store: as requested, or by the form of the names."""
    if layout is not opt.Layout.auto:
        return layout is opt.Layout.shards
    from auravae_cli.operations.suffixes import is_tar
    from auravae_cli.store.names import is_store

    if any("://" in name or is_tar(name) for name in [*names, output or ""]):
        return True
    return output is not None and is_store(output)
