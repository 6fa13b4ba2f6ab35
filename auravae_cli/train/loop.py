"""The training loop: a generator of step records, resumable bit for bit."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auravae_cli.errors import ComputeError
from auravae_cli.machine.allocator import kept_memory
from auravae_cli.model.checkpoints.ties import PIXELS
from auravae_cli.model.network.lpips import load_lpips
from auravae_cli.train import kernels, losses
from auravae_cli.train.fast_network import FastAutoencoder
from auravae_cli.train.optimizers import build_optimizers, learning_rate, update
from auravae_cli.train.pictures import Batch, Pictures, batches
from auravae_cli.train.processes import Processes
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.trainable import (
    TrainedAutoencoder,
    Window,
    build,
    build_discriminator,
    flip_each,
)

MAX_SKIPPED = 20  # consecutive steps whose gradient is not finite


@dataclass
class State:
    """Everything that a run changes, and that a checkpoint holds."""

    step: int
    autoencoder: TrainedAutoencoder
    ema: TrainedAutoencoder
    optimizers: list[torch.optim.Optimizer]
    discriminator: nn.Module | None = None
    discriminator_optimizers: list[torch.optim.Optimizer] = field(default_factory=list)


@dataclass(frozen=True)
class StepRecord:
    """The results of one step; ``losses`` are not weighted."""

    step: int
    losses: dict[str, float]
    psnr: float
    learning_rate: float
    gradient_norm: float
    seconds: float


def initial_state(recipe: Recipe, device: torch.device) -> State:
    """Return the state before the first step."""
    autoencoder = build(recipe).to(device)
    ema = copy.deepcopy(autoencoder).requires_grad_(False)
    state = State(0, autoencoder, ema, build_optimizers(autoencoder, recipe.optimizer))
    if any(stage.losses.gan for stage in recipe.stages):
        state.discriminator = build_discriminator().to(device)
        adamw = replace(recipe.optimizer, kind="adamw")
        state.discriminator_optimizers = build_optimizers(state.discriminator, adamw)
    return state


def train(
    state: State,
    recipe: Recipe,
    pictures: Pictures,
    device: torch.device,
    processes: Processes,
    workers: int = 2,
) -> Iterator[StepRecord]:
    """Train from ``state.step`` to the end; ``state`` is up to date whenever a record is yielded.

    Every draw depends only on the seed, the step and the process, so a run that resumes from a
    checkpoint computes the same as an undisturbed one.

    Raises:
        ComputeError: the gradient was not finite for many steps in a row.
    """
    lpips = None
    if any(stage.losses.lpips for stage in recipe.stages):
        lpips = load_lpips(recipe.lpips_weights).to(device)
        lpips.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs
    model = _runnable(state.autoencoder, recipe, device, processes)
    skipped = 0
    stream = batches(
        pictures.training, recipe, state.step, processes.rank, processes.world_size, workers
    )
    with kept_memory():
        for batch in stream:
            started = time.perf_counter()
            step = state.step
            rate = learning_rate(step, recipe)
            images = to_unit_batch(batch, device)
            draw = np.random.default_rng([recipe.seed, step, processes.rank, 1]).random()
            if draw < recipe.reencoded:
                images = _round_trip(model, recipe, images)
            values, norm = _update(state, model, recipe, images, rate, lpips, processes)
            skipped = 0 if math.isfinite(norm) else skipped + 1
            if skipped > MAX_SKIPPED:
                raise ComputeError(
                    f"step {step}: the gradient has not been finite for {skipped} steps; lower the "
                    "learning rate, or train in float32"
                )
            state.step = step + 1
            mse = values["mse"]
            psnr = 10 * math.log10(4 / max(mse, 1e-12)) if math.isfinite(mse) else -math.inf
            yield StepRecord(step, values, psnr, rate, norm, time.perf_counter() - started)


def _runnable(
    autoencoder: TrainedAutoencoder, recipe: Recipe, device: torch.device, processes: Processes
) -> Any:
    """Return what computes a step: our own kernels if they are available, otherwise torch."""
    fast = kernels.find() if device.type == "cpu" else None
    is_served = recipe.equivariance == "exact" and recipe.precision == "bfloat16"
    if fast and is_served and processes.world_size == 1 and not recipe.compile:
        return FastAutoencoder(autoencoder, fast)
    model: Any = processes.wrap(autoencoder)
    return torch.compile(model) if recipe.compile else model


def to_unit_batch(batch: Batch, device: torch.device | str = "cpu") -> Tensor:
    """Convert uint8 [B, 3, H, W] => float32 in [-1, 1]."""
    return torch.from_numpy(batch).to(device, non_blocking=True).float() / 127.5 - 1


def _round_trip(model: Any, recipe: Recipe, images: Tensor) -> Tensor:
    """Encode and decode pictures with the weights as they are, to 8 bits a channel."""
    with (
        torch.no_grad(),
        torch.autocast(images.device.type, torch.bfloat16, recipe.precision == "bfloat16"),
    ):
        decoded = model(images, None, None, None)[0].float()
    return (decoded.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1


def _update(
    state: State,
    model: Any,
    recipe: Recipe,
    images: Tensor,
    rate: float,
    lpips: Any,
    processes: Processes,
) -> tuple[dict[str, float], float]:
    """Take one step of the optimizers; return the losses and the gradient's norm."""
    weights = recipe.stage_at(state.step).losses
    factors, flips, window = _draws(recipe, state.step, processes.rank, images)
    with torch.autocast(images.device.type, torch.bfloat16, recipe.precision == "bfloat16"):
        reconstruction, latent = model(images, factors, flips, window)
        reconstruction, latent = reconstruction.float(), latent.float()
        target = images if flips is None else flip_each(images, flips, PIXELS)
        if window is not None:
            target = window.of_pixels(target)
        found = losses.reconstruction_losses(
            reconstruction, target, latent, weights, lpips, recipe.lpips_share
        )
        if weights.uniform:
            found["uniform"] = losses.uniform(latent, images)
        if weights.gan:
            found["gan"] = _adversarial_loss(state, recipe, reconstruction, target, processes)
    losses.weighted_sum(found, weights).backward()
    norm = update(state.optimizers, state.autoencoder, rate, recipe.optimizer.clip_norm)
    if math.isfinite(norm):
        _average(state, recipe.optimizer.ema)
    return {name: float(value.detach()) for name, value in found.items()}, norm


def _draws(
    recipe: Recipe, step: int, rank: int, images: Tensor
) -> tuple[Tensor | None, Tensor | None, Window | None]:
    """Draw the step's noise factors [B, C, h, w], group elements [2, B] and window; None if not wanted."""
    generator = torch.Generator().manual_seed(hash((recipe.seed, step, rank)) & (2**63 - 1))
    batch, factor = len(images), recipe.architecture.downsampling_factor
    factors = flips = None
    if recipe.noise.level and recipe.noise.share:
        cells = [side // factor for side in images.shape[2:]]
        normal = torch.randn(batch, recipe.space.channels, *cells, generator=generator)
        noisy = torch.rand(batch, generator=generator) < recipe.noise.share
        factors = 1 + recipe.noise.level * normal * noisy[:, None, None, None]
        factors = factors.to(images.device, non_blocking=True)
    if recipe.equivariance == "learned":
        flips = torch.rand(2, batch, generator=generator) < 0.5
        flips = flips.to(images.device, non_blocking=True)
    return factors, flips, _draw_window(recipe, images, generator)


def _draw_window(recipe: Recipe, images: Tensor, generator: torch.Generator) -> Window | None:
    if not recipe.latent_crops or torch.rand((), generator=generator) >= recipe.latent_crops:
        return None
    factor = recipe.architecture.downsampling_factor
    height, width = (max(1, side // factor // 2) for side in images.shape[2:])
    top, left = (
        int(torch.randint(side // factor - kept + 1, (), generator=generator))
        for side, kept in zip(images.shape[2:], (height, width), strict=True)
    )
    return Window(top, left, height, width, factor)


def _adversarial_loss(
    state: State, recipe: Recipe, fake: Tensor, real: Tensor, processes: Processes
) -> Tensor:
    """Train the discriminator for one step; return its loss of the reconstructions."""
    discriminator = state.discriminator
    assert discriminator is not None
    discriminator.zero_grad(set_to_none=True)  # left by the generator's loss
    losses.discriminator_loss(discriminator(real), discriminator(fake.detach())).backward()
    processes.average_gradients(discriminator)
    rate, clip_norm = recipe.discriminator_learning_rate, recipe.optimizer.clip_norm
    update(state.discriminator_optimizers, discriminator, rate, clip_norm)
    torch.clear_autocast_cache()  # it holds the weights from before the step
    with torch.no_grad():
        expected = discriminator(real)
    return losses.generator_loss(expected, discriminator(fake))


def _average(state: State, decay: float) -> None:
    """Move the averaged weights towards the trained ones, faster in the first steps."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        averaged: list[Tensor] = list(state.ema.parameters())
        trained: list[Tensor] = list(state.autoencoder.parameters())
        torch._foreach_lerp_(averaged, trained, 1 - decay)
