"""Modules with the weights of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from auravae_cli.model.checkpoints.halves import load_halves
from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.spec.config import Architecture

PARTS = {"encoder": Encoder, "decoder": Decoder}


def load_networks(
    path: Path, parts: tuple[str, ...], device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, nn.Module], Architecture]:
    """Build the requested halves (``encoder``, ``decoder``) and fill them from a checkpoint.

    Raises:
        WeightsError: the file is damaged, of another architecture, or lacks a tensor.
    """
    halves, architecture = load_halves(path, parts)
    networks = {}
    for part, state in halves.items():
        with torch.device("meta"):  # spends neither memory nor time on initial values
            network = PARTS[part](architecture)
        tensors = {name: torch.from_numpy(array).to(device, dtype) for name, array in state.items()}
        network.load_state_dict(tensors, assign=True)
        networks[part] = network.eval().requires_grad_(False)
    return networks, architecture
