"""auravae info"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auravae_cli.cli.reports.values import rounded, show_fact
from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import say, tell_json

if TYPE_CHECKING:
    from auravae_cli.latents.latent_file import LatentFile


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
    from auravae_cli.errors import AuraVaeError, LatentFileError
    from auravae_cli.latents.latent_file import parse_latents, read_latents
    from auravae_cli.operations.inputs import collect
    from auravae_cli.store.format import is_store

    failed = False
    stores = [argument for argument in latents if is_store(argument)]
    for store in stores:
        try:
            print_store(store, quick=quick, as_json=as_json)
        except AuraVaeError as error:
            failed = True
            say(f"failed: {error}")
    files = [argument for argument in latents if argument not in stores]
    sources = collect(files, [".safetensors"])
    if files and not sources:
        raise typer.BadParameter("no latent files in the folders named")
    for source in sources:
        try:
            if source.path is None:
                content = parse_latents(source.read_bytes(LatentFileError))
            else:
                content = read_latents(source.path)
            facts = describe(content)
        except AuraVaeError as error:
            failed = True
            say(f"failed: {source.name}: {error}")
            continue
        if as_json:
            tell_json({"file": source.name, **facts})
        else:
            rows = [[name, show_fact(name, value)] for name, value in facts.items()]
            print_table(source.name, ["", ""], rows)
    sys.stdout.flush()
    raise typer.Exit(EXIT_SOME_FAILED if failed else 0)


def describe(latents: LatentFile) -> dict[str, Any]:
    """The facts of a latent file, as JSON types."""
    import numpy as np

    from auravae_cli.latents.record import record_to_json
    from auravae_cli.latents.statistics import ChannelStatistics
    from auravae_cli.store.survey import add_values

    statistics = ChannelStatistics.empty(latents.space.irreps.dim, latents.space.clamp)
    add_values(statistics, latents)
    number = statistics.number
    is_whole = number == latents.values.size // len(number)  # else its mean is shown as unknown
    facts: dict[str, Any] = {
        "shape": list(latents.values.shape),
        "dtype": latents.dtype.name,
        "model": latents.space.model,
        "weights_sha256": latents.space.weights_sha256,
        "representation": str(latents.space.irreps),
        "downsampling_factor": latents.space.downsampling_factor,
        "clamp": latents.space.clamp,
        **({"symmetrized": True} if latents.space.is_symmetrized else {}),
        "tool_version": latents.tool_version,
    }
    if not latents.is_shard:
        facts |= record_to_json(latents.records[0])
    return facts | {
        "not_finite": statistics.not_finite,
        "minimum": float(statistics.minimum.min()) if number.any() else None,
        "maximum": float(statistics.maximum.max()) if number.any() else None,
        "clamped": statistics.clamped,
        "mean_per_channel": rounded(np.where(is_whole, statistics.mean, np.nan)),
        "deviation_per_channel": rounded(np.where(is_whole, statistics.deviation, np.nan)),
    }
