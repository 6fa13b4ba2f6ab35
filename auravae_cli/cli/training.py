"""What `auravae train` shows while it runs: a bar on stderr, validations on stdout."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from auravae_cli.cli.lines import progress, say, tell, tell_json
from auravae_cli.cli.stopping import stopping
from auravae_cli.train.processes import joined
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.run import Opening, Validation, run_training

COLUMNS = (None, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())


def follow(
    recipe: Recipe, folder: Path, device: str, workers: int, *, as_json: bool, quiet: bool
) -> None:
    """Run the training and report. Raises KeyboardInterrupt, with the checkpoint written."""
    with joined(device) as processes, stopping() as stop:
        steps = run_training(recipe, folder, processes.device(device), processes, workers)
        hidden = quiet or not processes.is_first or not sys.stderr.isatty()
        with progress(*COLUMNS, hidden=hidden) as bar:
            task = bar.add_task("", total=recipe.num_steps)
            for event in steps:
                if isinstance(event, Opening):
                    if processes.is_first and not quiet:
                        _announce(event)
                elif isinstance(event, Validation):
                    _report(event, as_json, quiet)
                else:
                    shown = f"PSNR {event.psnr:5.2f} dB  rate {event.learning_rate:.1e}"
                    bar.update(task, completed=event.step + 1, description=shown)
                if stop.is_set():
                    steps.close()
                    raise KeyboardInterrupt
        if processes.is_first and not quiet:
            say(f"{folder / 'model.safetensors'}: {recipe.name}, {recipe.num_steps} steps")


def _announce(opening: Opening) -> None:
    for fault in opening.unreadable:
        say(f"left out: {fault}")
    going_on = f", going on from step {opening.step}" if opening.step else ""
    say(f"{opening.num_training} pictures, {opening.num_validation} held out{going_on}")


def _report(validation: Validation, as_json: bool, quiet: bool) -> None:
    if as_json:
        tell_json(asdict(validation))
    elif not quiet:
        numbers = f"PSNR {validation.psnr:.2f} dB  SSIM {validation.ssim:.4f}"
        tell(f"step {validation.step}  held out: {numbers}", flush=True)
