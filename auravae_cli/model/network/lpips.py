"""LPIPS, the learned perceptual distance (Zhang et al. 2018, version 0.1, VGG16).

Its weights are not part of this package. They come from a safetensors file with the names of
torchvision's ``vgg16.features`` and ``lin0`` to ``lin4`` (convolutions may be int8 with a
``weight_scale`` per output channel), or from the ``lpips`` or
``torchmetrics`` package where one is installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.errors import WeightsError

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
POOLED_BEFORE = (5, 10, 17, 24)
TAPPED_AFTER = (2, 7, 14, 21, 28)
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """The distance of pictures [B, 3, H, W] in [-1, 1], at least 16 pixels a side: [B]."""

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1))
        for name, tensor in weights.items():
            self.register_buffer(name.replace(".", "_"), tensor)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        with torch.no_grad():
            expected = self.features(reference)
        return self.distance(self.features(image), expected)

    def distance(self, features: list[Tensor], expected: list[Tensor]) -> Tensor:
        """Return the distance [B] of pictures from their features."""
        distance = torch.zeros((), device=expected[0].device)
        for tap, (a, b) in enumerate(zip(features, expected, strict=True)):
            head = getattr(self, f"lin{tap}_weight")
            distance = distance + F.conv2d((a - b).square(), head).mean((1, 2, 3))
        return distance

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the tapped features, each normalised to unit length over its channels."""
        x = (x - self.shift) / self.scale
        tapped = []
        for layer in CONVOLUTIONS:
            if layer in POOLED_BEFORE:
                x = F.max_pool2d(x, 2)
            weight, bias = (getattr(self, f"features_{layer}_{n}") for n in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            if layer in TAPPED_AFTER:
                values = x.float()
                tapped.append(values / (values.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return tapped


def load_lpips(path: str | None) -> Lpips:
    """Load LPIPS from a weights file, or from a package if ``path`` is None.

    Raises:
        WeightsError: the file does not hold it, or no package is installed.
    """
    weights = _from_file(Path(path)) if path else _from_package()
    names = [f"features.{layer}.{kind}" for layer in CONVOLUTIONS for kind in ("weight", "bias")]
    names += [f"lin{tap}.weight" for tap in range(len(TAPPED_AFTER))]
    missing = [name for name in names if name not in weights]
    if missing:
        raise WeightsError(f"{path or 'lpips'}: no LPIPS of VGG16: {missing[0]} is missing")
    return Lpips({name: weights[name] for name in names}).eval()


def _from_file(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as LPIPS weights: {error}") from error
    for name in list(tensors):
        if name.endswith(".weight_scale"):
            scale = tensors.pop(name).view(-1, 1, 1, 1)
            weight = name.removesuffix("_scale")
            tensors[weight] = tensors[weight].float() * scale
    return {name: tensor.float() for name, tensor in tensors.items()}


def _from_package() -> dict[str, Tensor]:
    """Return the weights of the ``lpips`` or the ``torchmetrics`` package: same network, same names."""
    try:
        import lpips

        network = lpips.LPIPS(net="vgg", verbose=False)
    except ImportError:
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            network = LearnedPerceptualImagePatchSimilarity("vgg").net
        except ImportError:
            raise WeightsError(
                "LPIPS needs its weights: name a file of them, or pip install lpips; or do without"
            ) from None
    return canonical_names(network.state_dict())


def canonical_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's names for the packages' ``net.slice2.5.weight`` and ``lin0.model.1.weight``."""
    weights = {}
    for name, tensor in state.items():
        if layer := re.search(r"slice\d\.(\d+)\.(weight|bias)$", name):
            weights[f"features.{layer[1]}.{layer[2]}"] = tensor
        elif head := re.search(r"lin(\d)\.model\.\d\.weight$", name):
            weights[f"lin{head[1]}.weight"] = tensor
    return weights
