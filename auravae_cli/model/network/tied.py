"""Weights that make the network exactly equivariant, and their storage by orbit representatives.

The group acts on every weight: on its output channels, its input channels and its kernel's axes.
A network whose weights are all fixed by that action is exactly equivariant, at no cost in names,
shapes or time. Hidden features carry the regular representation: four blocks of C/4 channels, one
per group element, so that normalisation groups map to groups and attention heads to heads. Pixels
are even; the latent has the parities of its `Irreps`.

A fixed weight is determined by a quarter of itself, its representatives: the output channels of
the first block, or, if the output is not a hidden feature, the input channels of the first block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from auravae_cli.model.spec.config import IMAGE_CHANNELS
from auravae_cli.symmetry.group import GROUP, GroupElement, Irreps

PIXELS = Irreps(((IMAGE_CHANNELS, "ee"),))
ORDER = len(GROUP)


@dataclass(frozen=True)
class Tie:
    """The action of the group on one tensor: a convolution [out, in, kH, kW], or a vector [out].

    ``output`` and ``input`` are the representations on the channels; None is the regular one, of
    which the output may hold several, one after the other. ``corner`` marks a kernel of stride 2 that
    reads only the upper left 2 x 2 taps, which undoes its one-sided border.
    """

    output: Irreps | None = None
    input: Irreps | None = None
    copies: int = 1
    corner: bool = False

    def act(self, g: GroupElement, tensor: Tensor) -> Tensor:
        """Apply ``g`` to output channels, input channels and taps; return a tensor of equal shape."""
        if self.corner:
            return _padded(self._act(g, tensor[..., :2, :2]))
        return self._act(g, tensor)

    def _act(self, g: GroupElement, tensor: Tensor) -> Tensor:
        if tensor.ndim > 1:
            tensor = _act_on_channels(g, tensor, 1, self.input, 1).flip(g.axes)
        return _act_on_channels(g, tensor, 0, self.output, self.copies)

    def project(self, tensor: Tensor) -> Tensor:
        """Return the nearest tensor that the action fixes: the mean over the group."""
        return self.expand(self.representatives(tensor))

    def representatives(self, tensor: Tensor) -> Tensor:
        """Return the part of the projected tensor that determines the rest."""
        mean = torch.stack([self.act(g, tensor) for g in GROUP]).mean(0)
        if self.corner:
            mean = mean[..., :2, :2]
        if self.output is None:
            return mean.unflatten(0, (self.copies, ORDER, -1))[:, 0].flatten(0, 1)
        if tensor.ndim > 1:
            return mean.unflatten(1, (ORDER, -1))[:, 0]
        return mean[list(self.output.even_channels)]

    def expand(self, representatives: Tensor) -> Tensor:
        """Return the whole tensor: the orbit of its representatives."""
        if self.output is not None and representatives.ndim == 1:
            even = torch.tensor(self.output.even_channels, device=representatives.device)
            return representatives.new_zeros(self.output.dim).index_copy(0, even, representatives)
        if self.output is not None:
            orbit = [
                _act_on_channels(g, representatives.flip(g.axes), 0, self.output, 1) for g in GROUP
            ]
            return torch.stack(orbit, 1).flatten(1, 2)
        orbit = [representatives] * ORDER
        if representatives.ndim > 1:
            orbit = [
                _act_on_channels(g, representatives, 1, self.input, 1).flip(g.axes) for g in GROUP
            ]
        blocks = [tensor.unflatten(0, (self.copies, -1)) for tensor in orbit]
        whole = torch.stack(blocks, 1).flatten(0, 2)
        return _padded(whole) if self.corner else whole


def tie_of(name: str, irreps: Irreps) -> Tie:
    """Return the action of the group on the tensor of this name, for latents that carry ``irreps``."""
    layer = name.rpartition(".")[0]
    ends = {
        "encoder.conv_in": Tie(input=PIXELS),
        "encoder.conv_out": Tie(output=irreps),
        "decoder.conv_in": Tie(input=irreps),
        "decoder.conv_out": Tie(output=PIXELS),
    }
    if layer in ends:
        return ends[layer]
    return Tie(
        copies=3 if layer.endswith(".qkv") else 1,
        corner="downsample" in layer and name.endswith("weight"),
    )


def project(state: Mapping[str, Tensor], irreps: Irreps) -> dict[str, Tensor]:
    """Return the nearest exactly equivariant weights."""
    return {name: tie_of(name, irreps).project(tensor) for name, tensor in state.items()}


def representatives(state: Mapping[str, Tensor], irreps: Irreps) -> dict[str, Tensor]:
    """Return what to store of exactly equivariant weights: a quarter of them."""
    return {name: tie_of(name, irreps).representatives(t) for name, t in state.items()}


def expand(state: Mapping[str, Tensor], irreps: Irreps) -> dict[str, Tensor]:
    """Return the weights from their representatives."""
    return {name: tie_of(name, irreps).expand(tensor) for name, tensor in state.items()}


class Orbit(nn.Module):
    """A parametrization (torch.nn.utils.parametrize) that trains the representatives."""

    def __init__(self, tie: Tie) -> None:
        super().__init__()
        self.tie = tie

    def forward(self, representatives: Tensor) -> Tensor:
        return self.tie.expand(representatives)

    def right_inverse(self, tensor: Tensor) -> Tensor:
        return self.tie.representatives(tensor)


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


def _act_on_channels(
    g: GroupElement, tensor: Tensor, axis: int, irreps: Irreps | None, copies: int
) -> Tensor:
    if irreps is not None:
        signs = torch.tensor(irreps.signs(g), dtype=tensor.dtype, device=tensor.device)
        return tensor * signs.view(-1, *[1] * (tensor.ndim - 1 - axis))
    # Block 2 * vertical + horizontal belongs to that element, so g reverses the two binary digits.
    blocks = tensor.unflatten(axis, (copies, 2, 2, -1))
    digits = [axis + 1] * g.vertical + [axis + 2] * g.horizontal
    return blocks.flip(digits).flatten(axis, axis + 3)


def _padded(kernel: Tensor) -> Tensor:
    """Return a 2 x 2 kernel as the upper left corner of a 3 x 3 one."""
    return nn.functional.pad(kernel, (0, 1, 0, 1))
