"""auravae info"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from auravae_cli.cli.reports.values import show_fact
from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import say, tell_json


def info(
    latents: Annotated[
        list[str],
        typer.Argument(
            metavar="LATENT...", help="Latent files or shards, stores, folders, patterns, or -."
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Skip the values of stores, and their histograms.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Show what a latent file holds: its model, sizes, orientation, source and values.

    Examples:

        auravae info photo.safetensors
        auravae info store --quick

    For a store: its settings, shards, rows, shapes, and the distribution of
    values in each channel.
    """
    from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED, print_table
    from auravae_cli.cli.reports.store_info import print_store
    from auravae_cli.errors import AuraVaeError
    from auravae_cli.operations.describe import describe_files
    from auravae_cli.store.names import is_store

    failed = False
    stores = [argument for argument in latents if is_store(argument)]
    for store in stores:
        try:
            print_store(store, quick=quick, as_json=as_json)
        except AuraVaeError as error:
            failed = True
            say(f"failed: {error}")
    files = [argument for argument in latents if argument not in stores]
    for name, facts in describe_files(files):
        if isinstance(facts, AuraVaeError):
            failed = True
            say(f"failed: {name}: {facts}")
        elif as_json:
            tell_json({"file": name, **facts})
        else:
            rows = [[fact, show_fact(fact, value)] for fact, value in facts.items()]
            print_table(name, ["", ""], rows)
    sys.stdout.flush()
    raise typer.Exit(EXIT_SOME_FAILED if failed else 0)
