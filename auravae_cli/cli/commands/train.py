"""auravae train"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe such as configs/train/small.toml; with --status, the folder of a run.",
        ),
    ],
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", metavar="FOLDER", help="Where the run is kept."),
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="SOURCE", help="A folder or WebDataset tar; in place of the recipe's."
        ),
    ] = None,
    lpips: Annotated[
        Optional[str], typer.Option(metavar="PATH", help="Weights of LPIPS, where it is a loss.")
    ] = None,
    device: opt.Device = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Threads that make batches.")] = 2,
    status: Annotated[
        bool, typer.Option("--status", help="Tell how far a run is, under way or not.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a validation, on standard output.")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train a model from a recipe; RUN/model.safetensors is the result.

    A folder that holds a checkpoint of the same recipe goes on from it, bit for bit; an interrupted
    run writes one first. Under torchrun, every process takes its share of each batch.
    """
    from auravae_cli.cli.reports.training import follow, show_status
    from auravae_cli.files.toml_config import read_config
    from auravae_cli.train.recipe import Recipe

    if status:
        show_status(config, as_json=as_json)
        return
    if output is None:
        raise typer.BadParameter("where should the run be kept?", param_hint="--output")
    recipe = read_config(config, Recipe)
    if data:
        recipe = replace(recipe, data=replace(recipe.data, sources=tuple(data)))
    if lpips:
        recipe = replace(recipe, lpips_weights=lpips)
    follow(recipe, output, device, workers, as_json=as_json, quiet=quiet)
