"""Modules whose weights stay exactly equivariant while they are trained (see `checkpoints.ties`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from auravae_cli.model.checkpoints.ties import Tie, tie_of
from auravae_cli.symmetry.group import Irreps


class Orbit(nn.Module):
    """A parametrization (torch.nn.utils.parametrize) that trains the representatives."""

    def __init__(self, tie: Tie) -> None:
        super().__init__()
        self.tie = tie

    def forward(self, representatives: Tensor) -> Tensor:
        return self.tie.expand(representatives)

    def right_inverse(self, tensor: Tensor) -> Tensor:
        return self.tie.representatives(tensor).contiguous()  # not part of a larger tensor


def tie_weights(autoencoder: nn.Module, irreps: Irreps) -> None:
    """Project the weights of a module that holds ``encoder`` and ``decoder``, and keep them tied."""
    for name, _ in list(autoencoder.named_parameters()):
        path, _, attribute = name.rpartition(".")
        layer = autoencoder.get_submodule(path)
        parametrize.register_parametrization(layer, attribute, Orbit(tie_of(name, irreps)))


def whole_state(autoencoder: nn.Module) -> dict[str, Tensor]:
    """Return the weights under the checkpoint's names, tied ones expanded. Detached, not copied."""
    state = {}
    for name, tensor in autoencoder.named_parameters():
        path, is_tied, _ = name.partition(".parametrizations.")
        if is_tied:
            attribute = name.split(".")[-2]
            layer = autoencoder.get_submodule(path)
            state[f"{path}.{attribute}"] = getattr(layer, attribute).detach()
        else:
            state[name] = tensor.detach()
    return state


def load_whole_state(autoencoder: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights under the checkpoint's names into a module; tied layers project them."""
    for name, tensor in state.items():
        path, _, attribute = name.rpartition(".")
        assign(autoencoder.get_submodule(path), attribute, tensor)


@torch.no_grad()
def assign(layer: nn.Module, attribute: str, tensor: Tensor) -> None:
    """Set a layer's weight or bias, projected if the layer is tied."""
    if parametrize.is_parametrized(layer, attribute):
        setattr(layer, attribute, tensor.float())
    else:
        getattr(layer, attribute).copy_(tensor)
