"""auravae export"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import say, tell_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from auravae_cli.exchange.exportable import ExportBatch
    from auravae_cli.exchange.formats.base import Choices, Format
    from auravae_cli.operations.batches import Outcome


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
            help=f"The format to write: {opt.FORMATS}.",
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
            help="The network that the files are for, if the format's names or keys tell it (kohya, "
            "musubi, ai-toolkit). Default: one of 16 channels.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per file, then a summary, on standard output.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = False,
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
    from pathlib import Path

    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.exchange.export import Exporter
    from auravae_cli.exchange.unkept import Unkept
    from auravae_cli.files.storage import is_remote

    if to is None:
        raise typer.BadParameter("name a format", param_hint="--to")
    if output is None or output == "-":
        raise typer.BadParameter("name a folder for the files", param_hint="--output")
    if is_remote(output):
        raise typer.BadParameter(
            f"{output}: expected a folder here; copy it there afterwards", param_hint="--output"
        )
    form, choices = _choose(to.value, flipped, arch)
    parts, total = _parts(latents or [], listed)
    reporter, losses = Reporter(as_json, quiet), Unkept(form)
    exporter = Exporter(form, Path(output), choices, overwrite, any_model)
    code = reporter.run(exporter.run(parts, losses), total)
    if as_json:
        tell_json(losses.to_json(flipped))
    elif not quiet:
        for line in losses.lines(flipped):
            say(f"note: {line}")
    raise typer.Exit(code)


def _choose(name: str, flipped: bool, arch: str | None) -> tuple[Format, Choices]:
    from auravae_cli.exchange.formats.base import Choices
    from auravae_cli.exchange.registry import FORMATS

    form = FORMATS[name]
    if arch is not None and not form.archs:
        raise typer.BadParameter(f"{name} names no network", param_hint="--arch")
    if arch is not None and arch not in form.archs and not form.any_arch:
        raise typer.BadParameter(
            f"{arch!r}: expected one of {', '.join(form.archs)}", param_hint="--arch"
        )
    if form.needs_flipped and not flipped:
        raise typer.BadParameter(
            f"readers of {name} take {form.flipped!r} at random: it must be there",
            param_hint="--no-flipped",
        )
    return form, Choices(flipped, arch or (form.archs[0] if form.archs else ""))


def _parts(arguments: list[str], listed: str | None) -> tuple[Iterator[ExportBatch | Outcome], int]:
    """The latents that are named, and about how many there are."""
    from itertools import chain

    from auravae_cli.exchange.exportable import count_rows, file_parts, store_parts
    from auravae_cli.files.storage import open_storage
    from auravae_cli.operations.inputs import collect
    from auravae_cli.operations.suffixes import LATENTS
    from auravae_cli.store.format import is_store

    names = opt.read_names(arguments, listed)
    stores = [open_storage(name) for name in names if is_store(name)]
    files = collect([name for name in names if not is_store(name)], LATENTS)
    if not stores and not files:
        found = "the folders named hold none" if names else "none was named"
        raise typer.BadParameter(f"no latents: {found}; expected stores, files, folders, patterns")
    total = sum(map(count_rows, stores)) + len(files)
    return chain(*map(store_parts, stores), file_parts(files)), total
