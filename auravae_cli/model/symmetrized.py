"""Exact equivariance for any weights: the mean over the group, at four times the cost.

::

    z = mean over g of  g^-1 E(g x)          x = mean over g of  g^-1 D(g z)

(the orbit mean, or Reynolds operator). For a mirrored input, the four terms are the same four runs,
mirrored and in another order. They are summed as (e + h) + (v + hv). Every element of the group only
reorders the terms within a sum of two, which does not depend on their order. So the result for g x is
g of the result for x, bit for bit (except the sign of zeros), if the network gives equal results for
equal inputs. That is why the four run one by one, never as a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from auravae_cli.model.autoencoder import Autoencoder
from auravae_cli.model.planning.run_plan import Plan
from auravae_cli.symmetry.action import act, act_on_base
from auravae_cli.symmetry.group import GROUP, HV, E, GroupElement, H, Irreps, V


@dataclass(frozen=True)
class Symmetrized:
    """An autoencoder averaged over the group; ``irreps`` is its action on the latent."""

    autoencoder: Autoencoder
    irreps: Irreps

    def encode(self, images: Any) -> Any:
        """Encode [B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], not clamped."""
        encode = self.autoencoder.encode
        return orbit_mean(lambda g: self._act(g, encode(mirrored(g, images))))

    def decode(self, latents: Any) -> Any:
        """Decode [B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""
        decode = self.autoencoder.decode
        return orbit_mean(lambda g: mirrored(g, decode(self._act(g, latents))))

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """Return the plan of one run, with the operations of all four."""
        once = self.autoencoder.plan(part, batch, height, width)
        return replace(once, flops=len(GROUP) * once.flops)

    def _act(self, g: GroupElement, latents: Any) -> Any:
        return act(g, latents, self.irreps)


def orbit_mean(term: Callable[[GroupElement], Any]) -> Any:
    """Return the mean of ``term(g)`` over the group, equal for any order that the group gives the terms."""
    total = (term(E) + term(H)) + (term(V) + term(HV))
    return total / len(GROUP)  # exact, since it is a power of two


def mirrored(g: GroupElement, images: Any) -> Any:
    """Apply ``g`` to pixels [..., H, W]: an array or a tensor."""
    if isinstance(images, np.ndarray):
        return np.ascontiguousarray(act_on_base(g, images))
    return images.flip(g.axes)
