"""What `auravae train` shows while it runs: a bar on stderr, validations on stdout."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from auravae_cli.cli.report import say
from auravae_cli.train.processes import joined
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.run import Validation, run_training


def follow(
    recipe: Recipe, folder: Path, device: str, workers: int, *, as_json: bool, quiet: bool
) -> None:
    """Run the training and report."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # A scheduler's SIGTERM is an interruption like any other: the checkpoint is written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with joined(device) as processes:
        hidden = quiet or not processes.is_first or not sys.stderr.isatty()
        steps = run_training(recipe, folder, processes.device(device), processes, workers)
        with Progress(*columns, console=Console(stderr=True), disable=hidden) as progress:
            task = progress.add_task("", total=recipe.num_steps)
            for event in steps:
                if isinstance(event, Validation):
                    if as_json:
                        print(json.dumps(asdict(event)), flush=True)
                    elif not quiet:
                        print(
                            f"step {event.step}  held out: PSNR {event.psnr:.2f} dB  "
                            f"SSIM {event.ssim:.4f}",
                            flush=True,
                        )
                else:
                    progress.update(
                        task,
                        completed=event.step + 1,
                        description=f"PSNR {event.psnr:5.2f} dB  rate {event.learning_rate:.1e}",
                    )
        if processes.is_first and not quiet:
            say(f"{folder / 'model.safetensors'}: {recipe.name}, {recipe.num_steps} steps")
