"""Exact equivariance for any weights: the mean over the group, at four times the cost.

::

    z = mean over g of  g^-1 E(g x)          x = mean over g of  g^-1 D(g z)

(the orbit mean, or Reynolds operator). For a mirrored input the four terms are the same four runs,
mirrored and in another order. They are summed as (e + h) + (v + hv), which every element of the
group only reorders within a sum of two, and such a sum does not depend on its order. So the result
for g x is g of the result for x to the bit (but for the sign of a zero), if the network gives equal
results for equal inputs. That is why the four are run one by one, never as a batch.
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
    """An autoencoder averaged over the group. ``irreps`` says how it acts on the latent."""

    autoencoder: Autoencoder
    irreps: Irreps

    def encode(self, images: Any) -> Any:
        """[B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], not clamped."""
        encode = self.autoencoder.encode
        return orbit_mean(lambda g: self._act(g, encode(mirrored(g, images))))

    def decode(self, latents: Any) -> Any:
        """[B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""
        decode = self.autoencoder.decode
        return orbit_mean(lambda g: mirrored(g, decode(self._act(g, latents))))

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """That of one run, with the operations of all four."""
        once = self.autoencoder.plan(part, batch, height, width)
        return replace(once, flops=len(GROUP) * once.flops)

    def _act(self, g: GroupElement, latents: Any) -> Any:
        return act(g, latents, self.irreps)


def orbit_mean(term: Callable[[GroupElement], Any]) -> Any:
    """The mean of ``term(g)`` over the group, the same for the terms in any order of the group's."""
    total = (term(E) + term(H)) + (term(V) + term(HV))
    return total / len(GROUP)  # exact, being a power of two


def mirrored(g: GroupElement, images: Any) -> Any:
    """``g`` on pixels [..., H, W]: an array or a tensor."""
    if isinstance(images, np.ndarray):
        return np.ascontiguousarray(act_on_base(g, images))
    return images.flip(g.axes)
