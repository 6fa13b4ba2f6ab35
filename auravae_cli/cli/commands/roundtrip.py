"""auravae roundtrip"""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.shared.completion import complete_model
from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS, MODEL_VARIABLE

if TYPE_CHECKING:
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.images.prepare import Preparation
    from auravae_cli.operations.loading import Loading
    from auravae_cli.symmetry.group import GroupElement


class Flip(str, Enum):
    """The flips of the latent to decode as well."""

    h = "h"
    v = "v"
    hv = "hv"
    all = "all"


def roundtrip(
    photos: opt.Pictures = None,
    flip: Annotated[
        Flip | None,
        typer.Option(
            help="Also decode the flipped latent, compare it with the flipped picture, and write a contact sheet."
        ),
    ] = None,
    output: opt.Output = None,
    models: Annotated[
        Optional[list[str]],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model's name or the path of a checkpoint. Repeat it to compare models; each gets a folder. "
            f"Default: {DEFAULT_MODEL}, or AURAVAE_MODEL.",
            autocompletion=complete_model,
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRunOption = False,
    listed: opt.From = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    crop: opt.Crop = None,
    resize: opt.Resize = None,
    center_crop: opt.CenterCrop = None,
    pad: opt.PadOption = opt.Pad.edge,
    background: opt.Background = "white",
    symmetrize: opt.Symmetrize = opt.Symmetry.auto,
    noise: opt.Noise = 0.0,
    seed: opt.Seed = 0,
    store: opt.Store = opt.StoredDtypeName.float16,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
) -> None:
    """Encode and decode pictures, and compare: photo.jpg => photo.roundtrip.png, PSNR, SSIM.

    Examples:

        auravae roundtrip photo.jpg --flip all
        auravae roundtrip photos -o compared -m linear -m small

    The mean and the worst of several pictures are printed at the end.
    --flip also writes a contact sheet, photo.sheet.png: the original, the
    reconstruction, their difference, and each flip.
    """
    from auravae_cli.cli.reports.roundtrip import RoundTripReporter
    from auravae_cli.cli.shared.parsing import read_loading, read_preparation
    from auravae_cli.symmetry.group import GROUP, GroupElement

    preparation = read_preparation(crop, resize, center_crop, pad.value, background)
    names = opt.read_names(photos, listed)
    loading = read_loading(device, dtype, memory, symmetrize)
    reporter = RoundTripReporter(as_json, quiet, opt.data_on_stdout(names, output))
    model = models or [os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL]
    flips = (
        () if flip is None else GROUP[1:] if flip is Flip.all else (GroupElement.parse(flip.value),)
    )
    if dry_run:
        choice = flips, model, preparation, max_pixels
        raise typer.Exit(_predict(names, output, *choice, loading, reporter))
    from auravae_cli.operations.roundtrip import roundtrip_files

    with reporter:
        roundtrip_files(
            names,
            output,
            flips=flips,
            model=model,
            preparation=preparation,
            latent_dtype=store.value,
            noise=noise,
            seed=seed,
            max_pixels=max_pixels,
            overwrite=overwrite,
            progress=reporter,
            passed_over=reporter.passed_over,
            **loading,
        )
    raise typer.Exit(reporter.code)


def _predict(
    names: list[str],
    output: str | None,
    flips: tuple[GroupElement, ...],
    model: list[str],
    preparation: Preparation,
    max_pixels: int,
    loading: Loading,
    reporter: Reporter,
) -> int:
    """Print the predicted cost. Return the exit code."""
    from auravae_cli.cli.reports.dry_run import DryRunReporter
    from auravae_cli.forecast.predict import predict_roundtrip

    with DryRunReporter(reporter, "roundtrip") as report:
        predict_roundtrip(
            names,
            output,
            flips=flips,
            model=model,
            preparation=preparation,
            max_pixels=max_pixels,
            calibrating=report.calibrating,
            progress=report,
            passed_over=reporter.passed_over,
            **loading,
        )
    return reporter.code
