"""The group action on latents, without the model.

``g`` acts on the base space (it reverses spatial axes) and on the fibre (it negates the channels
that are odd under it). Together this is a signed permutation, which is exact in every float format,
including bfloat16 as raw 16-bit words, because values only move and sign bits only flip.

Source: the AuraEquiVAE model card (``g_global`` is the base space, ``g_local`` the fibre).
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from auravae_cli.symmetry.group import GroupElement, Irreps

ArrayOrTensor = TypeVar("ArrayOrTensor", bound=Any)


def act(
    g: GroupElement | str, latent: ArrayOrTensor, irreps: Irreps | str | None = None
) -> ArrayOrTensor:
    """Apply ``g`` to a latent; return a new one of the same type.

    Args:
        g: the group element, or its name.
        latent: [..., C, h, w]: a numpy array (float16, float32, or bfloat16 as uint16 words), or
            a torch tensor of any float type on any device; or a latent with its record, which knows
            its representation.
        irreps: the fibre representation, with ``irreps.dim == C``; None for a latent that knows it.

    Raises:
        ValueError: no such element, no representation, or the latent does not have its channels.
    """
    g = GroupElement.of(g)
    if irreps is None:
        if not hasattr(latent, "irreps"):
            raise ValueError(
                "an array does not know its representation: act(g, latent, irreps), where irreps is that of "
                "the model, such as codec.space.irreps or '12xee+2xoe+2xeo'"
            )
        return latent.act(g)  # type: ignore[no-any-return]
    irreps = Irreps.parse(irreps) if isinstance(irreps, str) else irreps
    if latent.ndim < 3 or latent.shape[-3] != irreps.dim:
        raise ValueError(
            f"expected a latent [..., {irreps.dim}, h, w] for {irreps}, found shape {tuple(latent.shape)}"
        )
    if isinstance(latent, np.ndarray):
        out: Any = np.empty(latent.shape, latent.dtype)
        act_into(out, g, latent, irreps)
        return out  # type: ignore[no-any-return]
    flipped: ArrayOrTensor = latent.flip(g.axes)  # a copy, even if g is the identity
    for channel in irreps.odd_channels(g):
        flipped[..., channel, :, :].neg_()
    return flipped


def act_into(out: NDArray[Any], g: GroupElement, latent: NDArray[Any], irreps: Irreps) -> None:
    """Apply `act` to a numpy array, writing into ``out``, which must not overlap ``latent``."""
    word = np.dtype(f"u{latent.dtype.itemsize}")
    sign_bit = word.type(1 << (8 * word.itemsize - 1))
    source, target = act_on_base(g, latent.view(word)), out.view(word)
    signs, start = irreps.signs(g), 0
    for stop in range(1, len(signs) + 1):  # runs of equal signs move in one call
        if stop == len(signs) or signs[stop] != signs[start]:
            run = (..., slice(start, stop), slice(None), slice(None))
            if signs[start] < 0:
                np.bitwise_xor(source[run], sign_bit, out=target[run])
            else:
                np.copyto(target[run], source[run])
            start = stop


def act_on_base(g: GroupElement, array: NDArray[Any]) -> NDArray[Any]:
    """Apply ``g`` to the base space only: return a view of [..., H, W] with the spatial axes reversed.

    This is the whole action on pixels, whose channels are all even.
    """
    rows = slice(None, None, -1 if g.vertical else 1)
    columns = slice(None, None, -1 if g.horizontal else 1)
    return array[..., rows, columns]


def act_on_pixels(g: GroupElement, pixels: NDArray[Any]) -> NDArray[Any]:
    """Apply ``g`` to a picture [H, W, 3]; return a view."""
    return act_on_base(g, pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
