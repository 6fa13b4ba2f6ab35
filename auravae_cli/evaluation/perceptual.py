"""LPIPS for evaluations: for pictures, and with the original's features shared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from auravae_cli.images.read import Pixels, to_unit
from auravae_cli.model.network.lpips import Lpips, load_lpips

LEAST_SIDE = 16


class PerceptualDistance:
    """LPIPS of uint8 pictures [H, W, 3]; ``digest`` identifies its weights."""

    def __init__(self, lpips: Lpips, device: str) -> None:
        self._lpips, self._device = lpips.to(device), device
        digest = hashlib.sha256()
        for name, tensor in sorted(lpips.named_buffers()):
            digest.update(name.encode())
            digest.update(tensor.cpu().numpy().tobytes())
        self.digest = digest.hexdigest()

    def distances(self, original: Pixels, reconstructions: Sequence[Pixels]) -> list[float | None]:
        """Return the distance of each reconstruction; None for pictures below 16 pixels a side."""
        if min(original.shape[:2]) < LEAST_SIDE:
            return [None for _ in reconstructions]
        with torch.inference_mode():
            expected = self._lpips.features(self._tensor(original))
            return [
                float(self._lpips.distance(self._lpips.features(self._tensor(r)), expected))
                for r in reconstructions
            ]

    def _tensor(self, pixels: Pixels) -> Tensor:
        return torch.from_numpy(to_unit(pixels)[None]).to(self._device)


def load_perceptual(path: str | None, device: str) -> PerceptualDistance:
    """Load LPIPS from a weights file, or from a package if ``path`` is None. Raises WeightsError."""
    return PerceptualDistance(load_lpips(path), device)


def is_installed() -> bool:
    """Return whether the lpips package is installed with all its weights, so none would be downloaded."""
    if find_spec("lpips") is None:
        return False
    return any(Path(torch.hub.get_dir(), "checkpoints").glob("vgg16-*.pth"))
