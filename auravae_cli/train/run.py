"""A training run in a folder: what is read, written and reported around the loop.

RUN/checkpoint.pt       the whole state, to continue from
RUN/log.jsonl           a line every few steps, and one for each validation
RUN/preview.png         held-out pictures beside their reconstructions
RUN/model.safetensors   the result: averaged weights, loads with --model
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auravae_cli.errors import ComputeError, ConfigError, OutputError
from auravae_cli.files.atomic import write_atomically
from auravae_cli.files.canonical_json import write_json
from auravae_cli.images.contact_sheet import contact_sheet
from auravae_cli.images.metrics import psnr, ssim
from auravae_cli.images.read import Pixels, from_unit, to_unit
from auravae_cli.images.write import picture_bytes
from auravae_cli.machine.allocator import kept_memory
from auravae_cli.machine.background import in_background
from auravae_cli.machine.progress import Phase
from auravae_cli.model.checkpoints.halves import check_names
from auravae_cli.model.checkpoints.read import read_checkpoint as read_weights
from auravae_cli.model.network.tied import load_whole_state, whole_state
from auravae_cli.train import checkpoint
from auravae_cli.train.linear_start import warm_start
from auravae_cli.train.loop import State, StepRecord, initial_state, to_unit_batch, train
from auravae_cli.train.pictures import Pictures, make_batch, read_pictures
from auravae_cli.train.processes import Processes
from auravae_cli.train.recipe import Recipe, Stage
from auravae_cli.train.status import LOG_NAME, Validation
from auravae_cli.train.trainable import TrainedAutoencoder, with_blocks
from auravae_cli.train.write_model import (
    centre_colours,
    latent_deviation,
    model_card,
    unit_deviation,
    write_weights,
)

MODEL_NAME = "model.safetensors"
LOG_EVERY = 10
PREVIEW_SIDE = 256
PREVIEW_COUNT = 8
START_SIDE, START_COUNT = 128, 24  # crops for fitting a linear start
SCALE_COUNT = 128  # crops for measuring the latent's deviation


@dataclass(frozen=True)
class Opening:
    """What a run starts from, and trains on: its first event."""

    step: int
    num_training: int
    num_validation: int
    unreadable: tuple[str, ...]
    stages: tuple[tuple[int, int, int], ...]  # steps, crop size and batch size of each
    changes: tuple[str, ...] = ()  # of the recipe, since the checkpoint


def run_training(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    processes: Processes,
    workers: int = 2,
    is_new_recipe: bool = False,
) -> Generator[Opening | StepRecord | Validation | Phase, None, None]:
    """Train in a folder, from its checkpoint if it has one; yield events as they come.

    A `Phase` comes before what takes a while and is no step; the `Opening` before the first step.

    A checkpoint of another recipe is continued only if ``is_new_recipe``: the step count is kept, and
    this recipe decides from there on rates, losses, data and length.

    If the consumer stops early (``close``), the checkpoint is written first.

    Raises:
        ConfigError: no pictures, a batch that does not divide among the processes, or a checkpoint
            of another recipe.
        WeightsError: damaged weights.
        OutputError: the folder cannot be written.
        ComputeError: training diverged.
    """
    for index, stage in enumerate(recipe.stages):
        if stage.batch_size % processes.world_size:
            raise ConfigError(
                f"stages[{index}].batch_size: {stage.batch_size} does not divide among "
                f"{processes.world_size} processes"
            )
    yield Phase("reading the pictures")
    pictures = in_background(lambda: read_pictures(recipe.data))
    state = initial_state(recipe, device)
    checkpoint_path = folder / checkpoint.FILE_NAME
    if checkpoint_path.is_file():
        yield Phase("reading the checkpoint")
        changes = checkpoint.read_run(checkpoint_path, state, recipe, is_new_recipe)
    else:
        changes = ()
        yield Phase(f"making the {recipe.start} start")
        in_background(lambda: start(state, recipe, pictures))
        if processes.is_first:  # a fitted start takes minutes
            checkpoint.write_checkpoint(checkpoint_path, state, recipe)
    opening = Opening(
        state.step,
        len(pictures.training),
        len(pictures.validation),
        pictures.unreadable,
        tuple((stage.steps, stage.crop_size, stage.batch_size) for stage in recipe.stages),
        changes,
    )
    if processes.is_first:
        _log(folder, {"opening": asdict(opening)})
    try:
        yield opening
        for record in train(state, recipe, pictures, device, processes, workers):
            if processes.is_first and record.step % LOG_EVERY == 0:
                _log(folder, asdict(record))
            yield record
            is_due = state.step % recipe.checkpoint_every == 0 and state.step < recipe.num_steps
            if processes.is_first and is_due:
                _require_finite(state)
                checkpoint.write_checkpoint(checkpoint_path, state, recipe)
                yield _validate(folder, state, pictures)
    except GeneratorExit:  # between two steps; an error within one leaves the last checkpoint
        if processes.is_first and _is_finite(state):
            checkpoint.write_checkpoint(checkpoint_path, state, recipe)
        raise
    if processes.is_first:
        _require_finite(state)
        checkpoint.write_checkpoint(checkpoint_path, state, recipe)
        yield Phase("writing the model")
        yield in_background(lambda: finish(folder, state, recipe, pictures))


def _require_finite(state: State) -> None:
    """Raise ComputeError if training has diverged: the last checkpoint stays, and no model is written."""
    if not _is_finite(state):
        raise ComputeError(
            f"step {state.step}: the weights are not finite: training has diverged. The last checkpoint is from "
            "before; continue from it with a lower learning rate (--new-recipe)"
        )


def _is_finite(state: State) -> bool:
    networks = (state.autoencoder, state.ema)
    return all(bool(p.isfinite().all()) for network in networks for p in network.parameters())


def start(state: State, recipe: Recipe, pictures: Pictures) -> None:
    """Give the untrained networks the recipe's initial weights."""
    autoencoder = state.autoencoder
    if recipe.start == "linear":
        device = next(autoencoder.parameters()).device
        crops = replace(recipe, stages=(Stage(1, START_SIDE, START_COUNT),))
        images = to_unit_batch(make_batch(pictures.training, crops, 0))
        warm_start(autoencoder.cpu(), images)
        autoencoder.to(device)
    elif recipe.start != "random" and checkpoint.is_checkpoint(Path(recipe.start)):
        checkpoint.continue_from(Path(recipe.start), state)
        return
    elif recipe.start != "random":
        path = Path(recipe.start)
        own = whole_state(autoencoder)
        saved = {n: torch.from_numpy(array) for n, array in read_weights(path).state.items()}
        weights = with_blocks(saved, own)
        expected, found = (
            {name: tuple(tensor.shape) for name, tensor in state.items()}
            for state in (own, weights)
        )
        check_names(path, expected, found)
        load_whole_state(autoencoder, weights)
    state.ema.load_state_dict(autoencoder.state_dict())


def finish(
    folder: Path, state: State, recipe: Recipe, pictures: Pictures, **facts: Any
) -> Validation:
    """Write a model to a folder, with a preview and its quality; colours are centred first.

    ``facts`` are added to the model's card.
    """
    with kept_memory():  # crops at full resolution, one batch after the other
        centre_colours(state.ema, _crops(recipe, pictures, state))
        result = _validate(folder, state, pictures)
        export(folder / MODEL_NAME, state, recipe, pictures, result, **facts)
    return result


def export(
    path: Path,
    state: State,
    recipe: Recipe,
    pictures: Pictures,
    result: Validation,
    **facts: Any,
) -> None:
    """Write the averaged weights, scaled to latents of unit deviation, with their card and ``facts``."""
    images = _crops(recipe, pictures, state)
    weights = unit_deviation(whole_state(state.ema), latent_deviation(state.ema, images))
    card = model_card(recipe, state.step, asdict(result)) | facts
    write_weights(path, weights, recipe, card)


def _crops(recipe: Recipe, pictures: Pictures, state: State) -> Tensor:
    """Return crops of photographs, for measuring the averaged network."""
    stage = Stage(1, recipe.stages[-1].crop_size, SCALE_COUNT)
    crops = replace(recipe, stages=(stage,), data=replace(recipe.data, drawn=0.0))
    device = next(state.ema.parameters()).device
    return to_unit_batch(make_batch(pictures.training, crops, 0), device)


def _validate(folder: Path, state: State, pictures: Pictures) -> Validation:
    """Reconstruct the held-out pictures, log the quality, and draw some of them."""
    cells: list[tuple[str, Pixels]] = []
    numbers, tints = [], []
    for picture in pictures.validation:
        original = _middle(picture, state.autoencoder.downsampling_factor)
        reconstruction = _reconstruct(state.ema, original)
        numbers.append((psnr(reconstruction, original), ssim(reconstruction, original) or 1.0))
        tints.append((reconstruction.astype(float) - original).mean((0, 1)))
        if len(cells) < 2 * PREVIEW_COUNT:
            cells += [("original", original), (f"{numbers[-1][0]:.2f} dB", reconstruction)]
    write_atomically(folder / "preview.png", picture_bytes(contact_sheet(cells, columns=4), ".png"))
    mean = np.mean(numbers, axis=0)
    tint = float(np.abs(np.mean(tints, axis=0)).max())
    validation = Validation(state.step, float(mean[0]), float(mean[1]), tint)
    _log(folder, {"validation": asdict(validation)})
    return validation


def _middle(picture: Pixels, factor: int) -> Pixels:
    """Return the middle of a picture, with sides that are multiples of the factor and at most 256."""
    missing = [(0, max(0, factor - side)) for side in picture.shape[:2]]
    picture = np.pad(picture, (*missing, (0, 0)), mode="edge")
    sides = [min(side, PREVIEW_SIDE) // factor * factor for side in picture.shape[:2]]
    top, left = ((side - kept) // 2 for side, kept in zip(picture.shape, sides, strict=False))
    return picture[top : top + sides[0], left : left + sides[1]]


@torch.inference_mode()
def _reconstruct(autoencoder: TrainedAutoencoder, picture: Pixels) -> Pixels:
    device = next(autoencoder.parameters()).device
    batch = torch.from_numpy(to_unit(picture)[None]).to(device)
    return from_unit(autoencoder(batch)[0][0].float().cpu().numpy())


def _log(folder: Path, facts: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(write_json(facts) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error
