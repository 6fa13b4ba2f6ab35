"""The interface of what a codec runs: a network, the linear model, or either made equivariant."""

from __future__ import annotations

from typing import Any, Protocol

from auravae_cli.model.planning.run_plan import Plan


class Autoencoder(Protocol):
    """Maps arrays to arrays, and tensors to tensors."""

    def encode(self, images: Any) -> Any:
        """Encode [B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], not clamped."""

    def decode(self, latents: Any) -> Any:
        """Decode [B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """Return how ``batch`` pictures of a size in pixels run. Raises ComputeError if not even one fits."""
