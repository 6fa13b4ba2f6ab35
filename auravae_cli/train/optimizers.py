"""The optimizer and the learning rate of each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from auravae_cli.train.muon import Muon
from auravae_cli.train.recipe import Optimizer, Recipe

ENDS = ("conv_in", "conv_out")
SHARE = "share_of_rate"


def build_optimizers(module: nn.Module, settings: Optimizer) -> list[torch.optim.Optimizer]:
    """Return AdamW for everything, or Muon for all convolutions except the first and last of each half.

    Biases and norms are not decayed. Parameters of AdamW beside Muon use `Optimizer.adamw_rate`.
    """
    matrices, ends, vectors = [], [], []
    for name, parameter in module.named_parameters():
        if parameter.ndim <= 1:
            vectors.append(parameter)
        elif settings.kind == "muon" and not any(end in name for end in ENDS):
            matrices.append(parameter)
        else:
            ends.append(parameter)
    share = settings.adamw_rate if matrices else 1.0
    groups = [
        {"params": ends, "weight_decay": settings.weight_decay, SHARE: share},
        {"params": vectors, "weight_decay": 0.0, SHARE: share},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True
        )
    ]
    if matrices:
        optimizers.append(
            Muon(matrices, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        )
    return optimizers


def update(
    optimizers: Sequence[torch.optim.Optimizer], module: nn.Module, rate: float, clip_norm: float
) -> float:
    """Clip the gradient and take a step, unless it is not finite; return the gradient's norm."""
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), clip_norm))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get(SHARE, 1.0)
        if math.isfinite(norm):
            optimizer.step()
    module.zero_grad(set_to_none=True)
    return norm


def load_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over the moments of a saved optimizer; all settings stay those of the current recipe.

    Raises ValueError: it has other parameters.
    """
    options = [
        {key: value for key, value in group.items() if key not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate: linear warm-up, constant, then linear to zero at the end (`Optimizer`)."""
    settings, left = recipe.optimizer, recipe.num_steps - step
    rising = (step + 1) / settings.warmup_steps if settings.warmup_steps else 1.0
    falling = left / (settings.decay * recipe.num_steps) if settings.decay else 1.0
    return settings.learning_rate * min(rising, 1.0, falling)
