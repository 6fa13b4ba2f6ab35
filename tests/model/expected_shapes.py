"""The shapes of a checkpoint, from the modules that take it."""

from __future__ import annotations

import torch

from auravae_cli.model.network.weights import PARTS
from auravae_cli.model.spec.config import Architecture


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of both halves."""
    with torch.device("meta"):
        networks = {part: network(architecture) for part, network in PARTS.items()}
    return {
        f"{part}.{name}": tuple(tensor.shape)
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
