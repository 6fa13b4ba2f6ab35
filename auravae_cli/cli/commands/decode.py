"""auravae decode"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.shared.completion import complete_model

if TYPE_CHECKING:
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.operations.loading import Loading


class PictureFormat(str, Enum):
    """Picture formats that can be written."""

    png = "png"
    jpg = "jpg"
    webp = "webp"
    tiff = "tiff"


def decode(
    latents: opt.Latents = None,
    output: opt.Output = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model's name or the path of a checkpoint. Default: the model that made the latents.",
            autocompletion=complete_model,
        ),
    ] = None,
    file_format: Annotated[
        PictureFormat,
        typer.Option("--format", help="The picture format, if no file is named with --output."),
    ] = PictureFormat.png,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRunOption = False,
    listed: opt.From = None,
    any_model: opt.AnyModel = False,
    symmetrize: opt.Symmetrize = opt.Symmetry.auto,
    noise: opt.Noise = 0.0,
    seed: opt.Seed = 0,
    bits: Annotated[
        int,
        typer.Option(
            metavar="8|16",
            help="Bits per channel; 16 is for PNG.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = 8,
    quality: opt.Quality = 95,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
    batch_size: opt.BatchSize = None,
) -> None:
    """Decode latents to pictures: photo.safetensors => photo.decoded.png.

    Examples:

        auravae decode photo.safetensors
        auravae decode latents -o pictures --format jpg

    Each picture has the exact size of the one that was encoded. A source
    picture is never overwritten. A shard or a store gives one picture per row,
    named after its source; if two shards of a store have pictures of the same
    name, each shard gets a folder.
    """
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.cli.shared.parsing import read_loading

    if bits not in (8, 16):
        raise typer.BadParameter(f"{bits}: expected 8 or 16", param_hint="--bits")
    names = opt.read_names(latents, listed)
    loading = read_loading(device, dtype, memory, symmetrize)
    reporter = Reporter(as_json, quiet, opt.data_on_stdout(names, output))
    if dry_run:
        choice = model, file_format.value, batch_size, overwrite
        raise typer.Exit(_predict(names, output, *choice, loading, reporter))
    from auravae_cli.operations.decode import decode_files

    with reporter:
        decode_files(
            names,
            output,
            model=model,
            picture_format=file_format.value,
            bits=bits,
            quality=quality,
            noise=noise,
            seed=seed,
            any_model=any_model,
            batch_size=batch_size,
            overwrite=overwrite,
            progress=reporter,
            **loading,
        )
    raise typer.Exit(reporter.code)


def _predict(
    names: list[str],
    output: str | None,
    model: str | None,
    picture_format: str,
    batch_size: int | None,
    overwrite: bool,
    loading: Loading,
    reporter: Reporter,
) -> int:
    """Print the predicted cost. Return the exit code."""
    from auravae_cli.cli.reports.dry_run import DryRunReporter
    from auravae_cli.forecast.predict import predict_decode

    with DryRunReporter(reporter, "decode") as report:
        predict_decode(
            names,
            output,
            model=model,
            picture_format=picture_format,
            batch_size=batch_size,
            overwrite=overwrite,
            calibrating=report.calibrating,
            progress=report,
            **loading,
        )
    return reporter.code
