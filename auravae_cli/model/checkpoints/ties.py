"""Weights that make the network exactly equivariant, and their storage by orbit representatives.

The group acts on every weight: on its output channels, its input channels and its kernel's axes.
A network whose weights are all fixed by that action is exactly equivariant, at no cost in names,
shapes or time. Hidden features carry the regular representation: four blocks of C/4 channels, one
per group element, so that normalisation groups map to groups and attention heads to heads. Pixels
are even; the latent has the parities of its `Irreps`.

A fixed weight is determined by a quarter of itself, its representatives: the output channels of
the first block, or, if the output is not a hidden feature, the input channels of the first block.

All functions take arrays of numpy, or tensors, and return the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from auravae_cli.model.spec.config import IMAGE_CHANNELS
from auravae_cli.symmetry.arrays import library_of
from auravae_cli.symmetry.group import GROUP, GroupElement, Irreps

PIXELS = Irreps(((IMAGE_CHANNELS, "ee"),))
ORDER = len(GROUP)
ArrayOrTensor = TypeVar("ArrayOrTensor", bound=Any)


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

    def act(self, g: GroupElement, tensor: ArrayOrTensor) -> ArrayOrTensor:
        """Apply ``g`` to output channels, input channels and taps; return a tensor of equal shape."""
        if self.corner:
            return _padded(self._act(g, tensor[..., :2, :2]))
        return self._act(g, tensor)

    def _act(self, g: GroupElement, tensor: Any) -> Any:
        if tensor.ndim > 1:
            tensor = _flipped(_act_on_channels(g, tensor, 1, self.input, 1), g)
        return _act_on_channels(g, tensor, 0, self.output, self.copies)

    def project(self, tensor: ArrayOrTensor) -> ArrayOrTensor:
        """Return the nearest tensor that the action fixes: the mean over the group."""
        return self.expand(self.representatives(tensor))

    def representatives(self, tensor: ArrayOrTensor) -> ArrayOrTensor:
        """Return the part of the projected tensor that determines the rest."""
        mean = library_of(tensor).stack([self.act(g, tensor) for g in GROUP]).mean(0)
        if self.corner:
            mean = mean[..., :2, :2]
        if self.output is None:
            blocks = mean.reshape(self.copies, ORDER, -1, *mean.shape[1:])
            return blocks[:, 0].reshape(-1, *mean.shape[1:])
        if tensor.ndim > 1:
            return mean.reshape(len(mean), ORDER, -1, *mean.shape[2:])[:, 0]
        return mean[list(self.output.even_channels)]

    def expand(self, representatives: ArrayOrTensor) -> ArrayOrTensor:
        """Return the whole tensor: the orbit of its representatives."""
        library, shape = library_of(representatives), representatives.shape
        if not shape:
            raise ValueError("a number by itself")
        if self.output is not None and representatives.ndim == 1:
            even = {channel: n for n, channel in enumerate(self.output.even_channels)}
            if len(even) != len(representatives):
                raise ValueError(f"{len(representatives)} numbers for {len(even)} even channels")
            none = library.zeros_like(representatives[:1])
            places = (even.get(channel) for channel in range(self.output.dim))
            each = [none if n is None else representatives[n : n + 1] for n in places]
            return library.concatenate(each)
        if self.output is not None:
            orbit = [
                _act_on_channels(g, _flipped(representatives, g), 0, self.output, 1) for g in GROUP
            ]
            return library.stack(orbit, 1).reshape(shape[0], -1, *shape[2:])
        orbit = [representatives] * ORDER
        if representatives.ndim > 1:
            orbit = [
                _flipped(_act_on_channels(g, representatives, 1, self.input, 1), g) for g in GROUP
            ]
        blocks = [tensor.reshape(self.copies, -1, *shape[1:]) for tensor in orbit]
        whole = library.stack(blocks, 1).reshape(-1, *shape[1:])
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


def project(state: Mapping[str, ArrayOrTensor], irreps: Irreps) -> dict[str, ArrayOrTensor]:
    """Return the nearest exactly equivariant weights."""
    return {name: tie_of(name, irreps).project(tensor) for name, tensor in state.items()}


def representatives(state: Mapping[str, ArrayOrTensor], irreps: Irreps) -> dict[str, ArrayOrTensor]:
    """Return what to store of exactly equivariant weights: a quarter of them."""
    return {name: tie_of(name, irreps).representatives(t) for name, t in state.items()}


def expand(state: Mapping[str, ArrayOrTensor], irreps: Irreps) -> dict[str, ArrayOrTensor]:
    """Return the weights from their representatives. Raises ValueError, RuntimeError or IndexError."""
    return {name: tie_of(name, irreps).expand(tensor) for name, tensor in state.items()}


def _flipped(tensor: Any, g: GroupElement) -> Any:
    return library_of(tensor).flip(tensor, g.axes)


def _act_on_channels(
    g: GroupElement, tensor: Any, axis: int, irreps: Irreps | None, copies: int
) -> Any:
    library, shape = library_of(tensor), tensor.shape
    if irreps is not None:
        is_array, each = isinstance(tensor, np.ndarray), irreps.signs(g)
        signs = np.array(each, tensor.dtype) if is_array else tensor.new_tensor(each)
        return tensor * signs.reshape(-1, *[1] * (tensor.ndim - 1 - axis))
    # Block 2 * vertical + horizontal belongs to that element, so g reverses the two binary digits.
    blocks = tensor.reshape(*shape[:axis], copies, 2, 2, -1, *shape[axis + 1 :])
    digits = [axis + 1] * g.vertical + [axis + 2] * g.horizontal
    return library.flip(blocks, tuple(digits)).reshape(shape)


def _padded(kernel: Any) -> Any:
    """Return a 2 x 2 kernel as the upper left corner of a 3 x 3 one."""
    library = library_of(kernel)
    for axis in (-1, -2):
        none = library.zeros_like(kernel[..., :1] if axis == -1 else kernel[..., :1, :])
        kernel = library.concatenate([kernel, none], axis)
    return kernel
