"""The output of `auravae train`: a bar on stderr, validations on stdout."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from auravae_cli.cli.shared.signals import stopping
from auravae_cli.cli.terminal.lines import progress, say, tell, tell_json
from auravae_cli.train.loop import StepRecord
from auravae_cli.train.processes import joined
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.run import Opening, run_training
from auravae_cli.train.status import RECENT, Status, Validation, read_status, status_of

VALIDATIONS_SHOWN = 10
COLUMNS = (None, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())


def follow(
    recipe: Recipe,
    folder: Path,
    device: str,
    workers: int,
    *,
    is_new_recipe: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the training and report it. Raises KeyboardInterrupt, with the checkpoint written."""
    with joined(device) as processes:
        steps = run_training(
            recipe, folder, processes.device(device), processes, workers, is_new_recipe
        )
        opening = next(steps)  # until then there is nothing to save, so signals act at once
        assert isinstance(opening, Opening)
        if processes.is_first and not quiet:
            _announce(opening)
        hidden = quiet or not processes.is_first or not sys.stderr.isatty()
        records: deque[tuple[int, float]] = deque(maxlen=RECENT)
        with stopping() as stop, progress(*COLUMNS, hidden=hidden) as bar:
            task = bar.add_task("", total=recipe.num_steps, completed=opening.step)
            for event in steps:
                if isinstance(event, Validation):
                    status = status_of(event.step, recipe.stages, tuple(records))
                    _report(event, status, as_json, quiet)
                elif isinstance(event, StepRecord):
                    records.append((event.step, event.seconds))
                    shown = f"PSNR {event.psnr:5.2f} dB  rate {event.learning_rate:.1e}"
                    bar.update(task, completed=event.step + 1, description=shown)
                if stop.is_set():
                    steps.close()
                    raise KeyboardInterrupt
        if processes.is_first and not quiet:
            say(f"{folder / 'model.safetensors'}: {recipe.name}, {recipe.num_steps} steps")


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print the progress of the run in ``folder``. Raises ConfigError."""
    status = read_status(folder)
    if as_json:
        tell_json(asdict(status))
        return
    tell(f"step {status.step} of {status.num_steps}, {status.step / status.num_steps:.1%}")
    tell(f"  pixels    {status.pixels:,} of {status.num_pixels:,}")
    if status.pixels_per_second and status.seconds_left is not None:
        tell(f"  speed     {status.pixels_per_second:,.0f} pixels a second")
        tell(f"  left      {duration(status.seconds_left)}")
    for held in status.validations[-VALIDATIONS_SHOWN:]:
        tell(f"  held out  PSNR {held.psnr:.2f} dB  SSIM {held.ssim:.4f}  at step {held.step}")


def duration(seconds: float) -> str:
    """Return seconds as text, with two units at most."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _announce(opening: Opening) -> None:
    for fault in opening.unreadable:
        say(f"left out: {fault}")
    going_on = f", going on from step {opening.step}" if opening.step else ""
    for change in opening.changes:
        say(f"changed: {change}")
    say(f"{opening.num_training} pictures, {opening.num_validation} held out{going_on}")


def _report(validation: Validation, status: Status, as_json: bool, quiet: bool) -> None:
    if as_json:
        tell_json(asdict(validation))
    elif not quiet:
        numbers = f"PSNR {validation.psnr:.2f} dB  SSIM {validation.ssim:.4f}"
        left = f"  {duration(status.seconds_left)} left" if status.seconds_left else ""
        tell(f"step {validation.step}  held out: {numbers}{left}", flush=True)
