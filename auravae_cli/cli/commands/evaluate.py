"""auravae eval"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.shared.completion import complete_model
from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS, MODEL_VARIABLE

_MEASURE = "Measurements"


def evaluate(
    photos: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="PHOTO...", help="Pictures, folders, patterns, tars, or URLs."),
    ] = None,
    models: Annotated[
        Optional[list[str]],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model's name or the path of a checkpoint; or another project's: diffusers:FOLDER (or a "
            "repository of the hub), taesd:FILE, MODULE:ATTRIBUTE of Python; or folder:PATH, reconstructions made "
            f"elsewhere. Repeat it to compare models. Default: {DEFAULT_MODEL}, or AURAVAE_MODEL.",
            autocompletion=complete_model,
        ),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            parser=opt.local_path,
            help="Keep the results here: each picture's as soon as it is measured, so that an interrupted run "
            "resumes; a summary; and certificates.",
        ),
    ] = None,
    html: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            parser=opt.local_path,
            help="Write all results, with pictures, as a page in one file.",
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    listed: opt.From = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    crop: opt.Crop = None,
    resize: opt.Resize = None,
    center_crop: opt.CenterCrop = None,
    pad: opt.PadOption = opt.Pad.edge,
    background: opt.Background = "white",
    symmetrize: Annotated[
        bool,
        typer.Option(
            "--symmetrize",
            help="Also measure each model averaged over the four flips.",
            rich_help_panel=opt.MODEL,
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Measure quality only: no flips, no noise, no storage types.",
            rich_help_panel=_MEASURE,
        ),
    ] = False,
    flips: Annotated[
        str,
        typer.Option(
            metavar="N|all",
            help="Measure equivariance on N pictures.",
            rich_help_panel=_MEASURE,
        ),
    ] = "16",
    sweeps: Annotated[
        str,
        typer.Option(
            metavar="N|all",
            help="Measure noise and storage types on N pictures.",
            rich_help_panel=_MEASURE,
        ),
    ] = "8",
    noise: Annotated[
        str,
        typer.Option(
            metavar="LEVELS",
            help="Levels of noise, as in decode --noise.",
            rich_help_panel=_MEASURE,
        ),
    ] = "0.05,0.1,0.2,0.3",
    seed: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Seed of the noise.", rich_help_panel=_MEASURE),
    ] = 0,
    lpips: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE|none",
            help="Weights of LPIPS (VGG16). Default: those of the lpips package (auravae\\[metrics]), if "
            "they are installed.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    rfid: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE",
            help="Weights of Inception; adds rFID (auravae\\[metrics]).",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    protocol: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Prepare and measure as published tables do: imagenet256-lavinal712, imagenet256-lightningdit, "
            "coco2017-sd, kodak.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    text: Annotated[
        bool,
        typer.Option(
            "--text",
            help="Measure by OCR whether text stays legible (auravae\\[ocr]).",
            rich_help_panel=_MEASURE,
        ),
    ] = False,
    compare: Annotated[
        Optional[tuple[str, str]],
        typer.Option(
            metavar="A B",
            help="Measure nothing: compare two folders of -o picture by picture, and mark what changed by more "
            "than chance.",
            rich_help_panel=_MEASURE,
        ),
    ] = None,
    store: Annotated[
        opt.StoredDtypeName,
        typer.Option(
            "--latent-dtype",
            metavar="TYPE",
            help="Measure latents stored as float16, bfloat16 or float32.",
            rich_help_panel=_MEASURE,
        ),
    ] = opt.StoredDtypeName.float16,
    csv: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            parser=opt.local_path,
            help="Write a line per picture and model.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    html_images: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Show N pictures on the page; if there are more, the worst, the median and the best.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = 30,
    certificate: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            parser=opt.local_path,
            help="Write the certificate of equivariance of the model.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    certify: Annotated[
        Optional[str],
        typer.Option(
            metavar="STORE",
            help="Add the certificate to this store, which the model made.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    as_json: Annotated[bool, opt.json_per("picture and model, then a summary,")] = False,
    quiet: opt.Quiet = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
    batch_size: opt.BatchSize = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Share the work among N processes, each with a GPU of its own if there are several.",
            rich_help_panel=opt.RUNNING,
        ),
    ] = 1,
    runner: Annotated[
        opt.Runner,
        typer.Option(
            help="Measure on this machine, or on a Ray cluster (auravae\\[ray]).",
            rich_help_panel=opt.RUNNING,
        ),
    ] = opt.Runner.local,
    address: Annotated[
        Optional[str],
        typer.Option(
            metavar="HOST:PORT",
            help="The Ray cluster; without it, one on this machine.",
            rich_help_panel=opt.RUNNING,
        ),
    ] = None,
) -> None:
    """Measure what models do to pictures: quality, noise, storage types, flips, latents.

    Examples:

        auravae eval photos --html results.html
        auravae eval photos -m small -m linear -o results

    With -o, an interrupted run resumes; --compare sets two kept runs side by
    side. Flips and sweeps are measured on a sample of the pictures, which is
    the same in every run.
    """
    from auravae_cli.cli.reports.comparison import report_comparison
    from auravae_cli.cli.reports.evaluation import EvalReporter
    from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED
    from auravae_cli.cli.shared.parsing import read_loading, read_preparation
    from auravae_cli.evaluation import session
    from auravae_cli.evaluation.measure import MeasureOptions
    from auravae_cli.evaluation.run import EvalOptions
    from auravae_cli.latents.dtypes import STORED_DTYPES

    if address is not None and runner is not opt.Runner.ray:
        raise typer.BadParameter(
            "it is for a Ray cluster: add --runner ray", param_hint="--address"
        )
    if compare is not None:
        if photos or listed or output:
            raise typer.BadParameter(
                "it compares kept results: leave out pictures and --output", param_hint="--compare"
            )
        report_comparison(session.compare_runs(*map(opt.local_path, compare)), as_json)
        return
    measured = MeasureOptions(
        read_preparation(crop, resize, center_crop, pad.value, background),
        STORED_DTYPES[store.value],
        _levels(noise),
        seed,
    )
    flips_of, sweeps_of = _number(flips, "--flips"), _number(sweeps, "--sweeps")
    if quick:
        flips_of = sweeps_of = 0
    loading = read_loading(device, dtype, memory, opt.Symmetry.auto)
    with EvalReporter(as_json, quiet, quick) as report:
        result = session.evaluate(
            opt.read_names(photos, listed),
            models or [os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL],
            options=EvalOptions(measured, flips_of, sweeps_of, batch_size, max_pixels),
            symmetrized=symmetrize,
            lpips=lpips,
            rfid=rfid,
            text=text,
            protocol=protocol,
            processes=processes,
            ray=runner is opt.Runner.ray,
            address=address,
            files=session.EvaluationFiles(
                output, csv, html, html_images, certificate, certify, overwrite
            ),
            progress=report,
            **loading,
        )
    report.finish(result.summary, result.rows)
    raise typer.Exit(EXIT_SOME_FAILED if result.failures or not result.rows else 0)


def _number(text: str, option: str) -> int | None:
    """Parse a number of pictures; None for ``all``."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise typer.BadParameter(
            f"{text!r}: expected a number such as 16, or all", param_hint=option
        )
    return int(text)


def _levels(text: str) -> tuple[float, ...]:
    """Parse levels of noise, without 0, which is always measured."""
    try:
        levels = sorted({float(part) for part in text.split(",")} - {0.0})
    except ValueError:
        levels = [-1.0]
    if not all(0 < level < 1e3 for level in levels):
        raise typer.BadParameter(f"{text!r}: expected levels such as 0.1,0.2", param_hint="--noise")
    return tuple(levels)
