"""What a codec runs: a network, the linear model, or either averaged over the group."""

from __future__ import annotations

from typing import Any, Protocol

from auravae_cli.model.planning.run_plan import Plan


class Autoencoder(Protocol):
    """Arrays in, arrays out; likewise tensors."""

    def encode(self, images: Any) -> Any:
        """[B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], not clamped."""

    def decode(self, latents: Any) -> Any:
        """[B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """How so many pictures of a size in pixels run; ComputeError where not one of them fits."""
