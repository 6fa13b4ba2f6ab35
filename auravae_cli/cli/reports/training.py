"""The output of `auravae train`: a bar on stderr, validations on stdout."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from auravae_cli.cli.shared.signals import stopping
from auravae_cli.cli.terminal.lines import say, tell, tell_json
from auravae_cli.cli.terminal.live import Live, Pace, duration
from auravae_cli.machine.progress import Phase
from auravae_cli.train.loop import StepRecord
from auravae_cli.train.processes import joined
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.run import Opening, run_training
from auravae_cli.train.status import RECENT, Status, Validation, read_status, status_of

VALIDATIONS_SHOWN = 10
Event: TypeAlias = Opening | StepRecord | Validation | Phase


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
        hidden = quiet or not processes.is_first
        with Live("starting", hidden=hidden) as live:
            # Until the opening there is nothing to save, so signals act at once.
            for event in steps:
                if isinstance(event, Phase):
                    live.begin(event.text)
                elif isinstance(event, Opening):
                    break
            assert isinstance(event, Opening)
            if not hidden:
                _announce(event)
            _follow_steps(steps, event, recipe, live, as_json=as_json, quiet=quiet)
        if not hidden:
            say(f"{folder / 'model.safetensors'}: {recipe.name}, {recipe.num_steps} steps")


def _follow_steps(
    steps: Generator[Event, None, None],
    opening: Opening,
    recipe: Recipe,
    live: Live,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Report the steps. A signal has the checkpoint written after the present one."""
    records: deque[tuple[int, float]] = deque(maxlen=RECENT)
    live.before = live.items = opening.step
    live.of, live.pace = recipe.num_steps, Pace(recipe.num_steps - opening.step)

    def hear(event: Event) -> None:
        if isinstance(event, Validation):
            status = status_of(event.step, recipe.stages, tuple(records))
            _report(event, status, as_json, quiet)
        elif isinstance(event, StepRecord):
            records.append((event.step, event.seconds))
            live.begin(f"PSNR {event.psnr:5.2f} dB  rate {event.learning_rate:.1e}")
            live.items = event.step + 1
            live.pace.done = live.items - opening.step

    with stopping() as stop:
        for event in steps:
            hear(event)
            if stop.is_set():
                steps.close()
                raise KeyboardInterrupt
            if isinstance(event, Phase):
                live.begin(event.text)
                break  # all steps are saved, so signals act at once again
    for event in steps:
        hear(event)


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


def _announce(opening: Opening) -> None:
    for fault in opening.unreadable:
        say(f"left out: {fault}")
    going_on = f", going on from step {opening.step}" if opening.step else ""
    for change in opening.changes:
        say(f"changed: {change}")
    say(f"{opening.num_training} pictures, {opening.num_validation} held out{going_on}")
    if opening.num_training < opening.num_validation:
        say(
            "warning: fewer pictures to train on than are held out; name more with --data, or lower "
            "data.num_validation in the recipe"
        )


def _report(validation: Validation, status: Status, as_json: bool, quiet: bool) -> None:
    if as_json:
        tell_json(asdict(validation))
    elif not quiet:
        numbers = f"PSNR {validation.psnr:.2f} dB  SSIM {validation.ssim:.4f}"
        left = f"  {duration(status.seconds_left)} left" if status.seconds_left else ""
        tell(f"step {validation.step}  held out: {numbers}{left}", flush=True)
