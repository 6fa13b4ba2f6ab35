"""A training run as one call, as `auravae train` makes it, with a progress that follows it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from auravae_cli.machine.progress import Phase, Progress, begin
from auravae_cli.train.loop import StepRecord
from auravae_cli.train.processes import joined
from auravae_cli.train.recipe import Recipe, find_recipe
from auravae_cli.train.run import MODEL_NAME, Opening, run_training
from auravae_cli.train.status import Validation

Event: TypeAlias = Opening | StepRecord | Validation


@dataclass(frozen=True)
class TrainingResult:
    """A finished run: its model's name and file, its steps, and the validations of this call."""

    name: str
    model: Path
    steps: int
    validations: tuple[Validation, ...]


def train_model(
    recipe: Recipe | str | Path,
    folder: str | Path,
    *,
    data: tuple[str, ...] = (),
    lpips: str | None = None,
    device: str = "auto",
    workers: int = 2,
    new_recipe: bool = False,
    progress: Progress[Event] | None = None,
) -> TrainingResult:
    """Train a model in a folder, as ``auravae train`` does; continue from its checkpoint if it has one.

    Args:
        recipe: a recipe, the path of one, or the name of one of the package, such as ``small``.
        folder: where the run is kept; the result is its ``model.safetensors``.
        data: folders or tars to train on, instead of those of the recipe.
        lpips: the weights of LPIPS, if it is a loss.
        workers: threads that make batches.
        new_recipe: continue although the recipe is not that of the checkpoint.
        progress: called with the opening, each step and each validation, and how many steps are done. What it
            raises ends the run, with its checkpoint written. Of several processes, each has its own.

    Raises:
        ConfigError: the recipe is at fault, no picture is there, or the checkpoint is of another recipe.
        WeightsError: weights are damaged. OutputError: the folder cannot be written.
        ComputeError: the training diverged.
    """
    if not isinstance(recipe, Recipe):
        recipe = find_recipe(recipe)
    if data:
        recipe = replace(recipe, data=replace(recipe.data, sources=tuple(data)))
    if lpips:
        recipe = replace(recipe, lpips_weights=lpips)
    folder = Path(folder)
    with joined(device) as processes:
        place = processes.device(device)
        events = run_training(recipe, folder, place, processes, workers, new_recipe)
        try:
            validations = _follow(events, recipe.num_steps, progress)
        finally:  # writes the checkpoint, if steps remain
            events.close()
    return TrainingResult(recipe.name, folder / MODEL_NAME, recipe.num_steps, tuple(validations))


def _follow(
    events: Generator[Event | Phase, None, None], steps: int, progress: Progress[Event] | None
) -> list[Validation]:
    """Tell every event; return the validations."""
    done, validations = 0, list[Validation]()
    for event in events:
        if isinstance(event, Phase):
            begin(progress, event)
            continue
        if isinstance(event, Opening):
            done = event.step
        elif isinstance(event, StepRecord):
            done = event.step + 1
        else:
            validations.append(event)
        if progress is not None:
            progress(event, done, steps)
    return validations
