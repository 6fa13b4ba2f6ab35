"""auravae train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            parser=opt.local_path,
            help="A recipe's file, or small, small-1 or small-gpu of the package; with --status, the folder of "
            "a run.",
        ),
    ],
    output: Annotated[
        Optional[Path],
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            parser=opt.local_path,
            help="The folder of the run.",
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Show how far a run is, whether or not it is running.")
    ] = False,
    new_recipe: Annotated[
        bool,
        typer.Option("--new-recipe", help="Resume although the recipe has changed."),
    ] = False,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="SOURCE",
            help="A folder or WebDataset tar, instead of those of the recipe. Repeatable.",
            rich_help_panel=opt.INPUT,
        ),
    ] = None,
    lpips: Annotated[
        Optional[str],
        typer.Option(
            metavar="PATH", help="Weights of LPIPS, if it is a loss.", rich_help_panel=opt.MODEL
        ),
    ] = None,
    as_json: Annotated[bool, opt.json_per("validation")] = False,
    quiet: opt.Quiet = False,
    device: opt.Device = "auto",
    workers: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Threads that make batches.", rich_help_panel=opt.RUNNING
        ),
    ] = 2,
) -> None:
    """Train a model from a recipe; the result is RUN/model.safetensors.

    Examples:

        auravae train small -o run --data photos
        auravae train run --status

    If the folder holds a checkpoint of the same recipe, training resumes from
    it, bit for bit; an interrupted run writes one first. Under torchrun, each
    process takes its share of every batch.
    """
    from auravae_cli.cli.reports.training import TrainingReporter, show_status

    if status:
        show_status(config, as_json=as_json)
        return
    if output is None:
        raise typer.BadParameter("name a folder for the run: -o run", param_hint="--output")
    from auravae_cli.train.session import train_model

    with TrainingReporter(as_json, quiet) as report:
        result = train_model(
            config,
            output,
            data=tuple(data or ()),
            lpips=lpips,
            device=device,
            workers=workers,
            new_recipe=new_recipe,
            progress=report,
        )
    report.finish(result)
