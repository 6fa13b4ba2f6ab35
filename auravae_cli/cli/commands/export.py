"""auravae export"""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import say, tell_json
from auravae_cli.defaults import STREAM


def export(
    latents: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="STORE|LATENT...", help="Stores, latent files or shards, folders, patterns."
        ),
    ] = None,
    to: Annotated[
        Optional[opt.ExchangeFormat],
        typer.Option(
            "--to",
            metavar="FORMAT",
            help=f"The format to write: {opt.WRITTEN_FORMATS}.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write to."),
    ] = None,
    overwrite: opt.Overwrite = False,
    listed: opt.From = None,
    any_model: Annotated[
        bool,
        typer.Option(
            "--any-model",
            help="Export latents of several models together.",
            rich_help_panel=opt.INPUT,
        ),
    ] = False,
    pictures: Annotated[
        Optional[str],
        typer.Option(
            metavar="FOLDER",
            help="Number the latents in the order of the pictures in this folder, as REPA pairs them (edm2).",
            rich_help_panel=opt.INPUT,
        ),
    ] = None,
    flipped: Annotated[
        bool,
        typer.Option(
            "--flipped/--no-flipped",
            help="Also write a mirrored copy, made by the group action, if the format has a place for it.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = True,
    arch: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="The network that the files are for, if the format's names or keys depend on it (kohya, "
            "musubi, ai-toolkit). Default: one of 16 channels.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    for_shift: Annotated[
        bool,
        typer.Option(
            "--for-shift",
            help="Apply the inverse of the trainer's normalisation, (z - shift) * scale, "
            "so that the trainer gets these values.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = False,
    as_json: Annotated[bool, opt.json_per("file, then a summary,")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write latents in the formats of other projects: kohya, ComfyUI, LightningDiT and others.

    Examples:

        auravae export store --to kohya -o cache
        auravae export latents --to npy -o arrays

    Flipped copies are made by the group action, without encoding again.
    Whatever a format has no place for is listed. docs/exchange.md describes
    the formats.
    """
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.exchange.export import export_latents

    if to is None:
        raise typer.BadParameter("name a format", param_hint="--to")
    if output is None or output == STREAM:
        raise typer.BadParameter("name a folder for the files", param_hint="--output")
    with Reporter(as_json, quiet) as reporter:
        unkept = export_latents(
            opt.read_names(latents, listed),
            output,
            to.value,
            flipped=flipped,
            arch=arch,
            for_shift=for_shift,
            pictures=pictures,
            any_model=any_model,
            overwrite=overwrite,
            progress=reporter,
        ).unkept
    if as_json:
        tell_json(unkept.to_json(flipped))
    elif not quiet:
        for line in unkept.lines(flipped):
            say(f"note: {line}")
    raise typer.Exit(reporter.code)
