"""auravae flip"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.shared import options as opt

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
    from auravae_cli.cli.reports.jobs import plan_jobs
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.operations.flip import flip_files
    from auravae_cli.operations.suffixes import FLIP_TAGS, LATENTS
    from auravae_cli.store.format import is_store
    from auravae_cli.symmetry.group import GroupElement

    g = GroupElement(horizontal, vertical)
    if not g.axes:
        raise typer.BadParameter("say how: --horizontal, --vertical, or both")
    reporter = Reporter(as_json, quiet)
    stores = [name for name in latents or [] if is_store(name)]
    if stores:
        if len(latents or []) > 1 or listed or overwrite:
            raise typer.BadParameter(
                f"{stores[0]} is a store: flip one at a time, into a place of its own"
            )
        raise typer.Exit(_flip_store(stores[0], output, g, reporter))
    jobs = plan_jobs(
        opt.read_names(latents, listed),
        output,
        input_suffixes=LATENTS,
        suffix=".safetensors",
        tag=f".{g}",
        output_suffixes=LATENTS,
        result_tags=frozenset() if output else FLIP_TAGS,
        reporter=reporter,
    )
    raise typer.Exit(reporter.run(flip_files(jobs, g, overwrite=overwrite), len(jobs)))


def _flip_store(store: str, output: str | None, g: GroupElement, reporter: Reporter) -> int:
    """Flip a store into another one; the exit code."""
    from pathlib import Path

    from auravae_cli.cli.reports.store_progress import StoreReporter
    from auravae_cli.files.storage import is_remote, open_storage
    from auravae_cli.operations.inputs import STREAM
    from auravae_cli.store.flip import StoreFlipper

    if output is None or output == STREAM:
        raise typer.BadParameter("name the place of another store", param_hint="--output")
    if not is_remote(output) and Path(output).resolve().is_relative_to(Path(store).resolve()):
        raise typer.BadParameter(
            "it is the store itself, or in it: name another place", param_hint="--output"
        )
    flipper = StoreFlipper(open_storage(store), open_storage(output), g)
    return StoreReporter(reporter, output, flipper.size).run(flipper.run())
