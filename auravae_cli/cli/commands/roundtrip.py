"""auravae roundtrip"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS

if TYPE_CHECKING:
    from auravae_cli.operations.batches import Outcome


class Flip(str, Enum):
    """Which flips of the latent are decoded as well."""

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
    model: opt.Model = DEFAULT_MODEL,
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

        auravae roundtrip photo.jpg
        auravae roundtrip photos -o compared --flip h

    --flip also writes a contact sheet, photo.sheet.png: the original, the
    reconstruction, their difference, and each flip.
    """
    from auravae_cli.cli.reports.jobs import plan_jobs
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.cli.shared.parsing import read_preparation
    from auravae_cli.cli.shared.sizes import read_size
    from auravae_cli.images.write import WRITABLE
    from auravae_cli.latents.dtypes import STORED_DTYPES
    from auravae_cli.model.codec import load_codec
    from auravae_cli.operations.decode import DecodeOptions
    from auravae_cli.operations.encode import EncodeOptions
    from auravae_cli.operations.roundtrip import roundtrip_files
    from auravae_cli.operations.suffixes import PICTURE_TAGS, PICTURES, ROUNDTRIP
    from auravae_cli.symmetry.group import GROUP, GroupElement

    reporter = Reporter(as_json, quiet)
    preparation = read_preparation(crop, resize, center_crop, pad.value, background)
    jobs = plan_jobs(
        opt.read_names(photos, listed),
        output,
        input_suffixes=PICTURES,
        suffix=".png",
        tag=ROUNDTRIP,
        output_suffixes=WRITABLE,
        result_tags=PICTURE_TAGS,
        reporter=reporter,
    )
    budget = read_size(memory, "--memory")
    elements = (
        () if flip is None else GROUP[1:] if flip is Flip.all else (GroupElement.parse(flip.value),)
    )
    if dry_run:
        from auravae_cli.cli.reports.dry_run import DryRun
        from auravae_cli.forecast.dry_run import forecast_pictures
        from auravae_cli.operations.timed_batches import roundtrip_parts

        parts = roundtrip_parts(len(elements))
        dry = DryRun(
            "roundtrip", parts, reporter, device, dtype.value, budget, None, symmetrize.value
        )
        setting = dry.setting(model)
        rows = forecast_pictures(
            jobs, dry.forecaster, setting, preparation, max_pixels, keeps=False
        )
        raise typer.Exit(dry.report(rows, len(jobs)))
    codec = load_codec(
        model, device=device, dtype=dtype.value, memory=budget, symmetrize=symmetrize.value
    )
    encode = EncodeOptions(preparation, STORED_DTYPES[store.value], max_pixels, overwrite)
    decode = DecodeOptions(noise=noise, seed=seed)
    outcomes = roundtrip_files(jobs, codec, encode, decode, elements)
    raise typer.Exit(reporter.run(outcomes, len(jobs), describe))


def describe(outcome: Outcome) -> list[str]:
    """A round trip's numbers for people, in lines."""
    details = outcome.details
    lines = [f"{outcome.source} -> {outcome.output or 'standard output'}"]
    if "sheet" in details:
        lines.append(f"  contact sheet   {details['sheet']}")
    lines.append(f"  reconstruction  {_quality(details)}")
    for g, numbers in details.get("flips", {}).items():
        lines.append(f"  {f'flipped by {g}':<14}  {_quality(numbers)}")
    seconds = details["seconds"].items()
    lines.append(
        "  seconds         " + ", ".join(f"{stage} {value:.3f}" for stage, value in seconds)
    )
    return lines


def _quality(numbers: dict[str, Any]) -> str:
    psnr, ssim = numbers["psnr"], numbers["ssim"]
    left = "identical" if psnr is None else f"PSNR {psnr:6.2f} dB"
    return left + ("" if ssim is None else f"   SSIM {ssim:.4f}")
