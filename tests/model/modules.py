"""The modules of a model, which are what torch's own results come from."""

from __future__ import annotations

import torch
from torch import nn

from auravae_cli.model.network.weights import PARTS, load_networks
from auravae_cli.model.spec.registry import find_weights


def modules_of(
    model: str, dtype: torch.dtype = torch.float32, parts: tuple[str, ...] = tuple(PARTS)
) -> dict[str, nn.Module]:
    """Both halves on the CPU, by the model's name or path."""
    return load_networks(find_weights(model)[0], parts, torch.device("cpu"), dtype)[0]
