"""auravae flip"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.defaults import STREAM

if TYPE_CHECKING:
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.symmetry.group import GroupElement


def flip(
    latents: opt.Latents = None,
    horizontal: Annotated[
        bool, typer.Option("--horizontal", "-H", help="Mirror left-right.")
    ] = False,
    vertical: Annotated[bool, typer.Option("--vertical", "-V", help="Mirror top-bottom.")] = False,
    output: opt.Output = None,
    overwrite: opt.Overwrite = False,
    listed: opt.From = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Flip latents exactly and without the model: photo.safetensors => photo.h.safetensors.

    Examples:

        auravae flip photo.safetensors --horizontal
        auravae flip store --vertical -o store-flipped

    Reverses an axis, and negates the channels that are odd under the flip.
    Takes latent files, shards and whole stores. Flipping twice gives back the
    same bytes.
    """
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.store.names import is_store
    from auravae_cli.symmetry.group import GroupElement

    by = GroupElement(horizontal, vertical)
    if not by.axes:
        raise typer.BadParameter("say how: --horizontal, --vertical, or both")
    stores = [name for name in latents or [] if is_store(name)]
    if stores:
        if len(latents or []) > 1 or listed or overwrite:
            raise typer.BadParameter(
                f"{stores[0]} is a store: flip one store at a time, into a new one"
            )
        raise typer.Exit(_flip_store(stores[0], output, by, Reporter(as_json, quiet)))
    names = opt.read_names(latents, listed)
    with Reporter(as_json, quiet, opt.data_on_stdout(names, output)) as reporter:
        _flip_files(names, by, output, overwrite, reporter)
    raise typer.Exit(reporter.code)


def _flip_files(
    names: list[str], by: GroupElement, output: str | None, overwrite: bool, reporter: Reporter
) -> None:
    from auravae_cli.operations.flip import flip_files

    flip_files(names, by, output, overwrite=overwrite, progress=reporter)


def _flip_store(store: str, output: str | None, by: GroupElement, reporter: Reporter) -> int:
    """Flip a store into another one. Return the exit code."""
    from auravae_cli.cli.reports.store_progress import StoreReporter
    from auravae_cli.store.flip import flip_store

    if output is None or output == STREAM:
        raise typer.BadParameter("name a place for the flipped store", param_hint="--output")
    with StoreReporter(reporter, output) as report:
        flip_store(store, output, by, progress=report)
    return report.code
