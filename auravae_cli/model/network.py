"""A loaded network on its device: what turns arrays or tensors into latents and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auravae_cli.config import Architecture
from auravae_cli.errors import ComputeError, DeviceError
from auravae_cli.memory import free_memory
from auravae_cli.model.weights import load_networks

LIVE_FEATURES = 7  # full-resolution feature maps in memory at once: 6.5 measured
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Network:
    """Encoder and decoder, or one of them, in a number format on a device.

    Accepts numpy arrays and tensors of any device, and gives back the same kind, in float32.
    """

    def __init__(
        self,
        parts: dict[str, nn.Module],
        architecture: Architecture,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.parts, self.architecture, self.device, self.dtype = parts, architecture, device, dtype

    def encode(self, images: Any) -> Any:
        """[B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], not clamped."""
        return self._run(self.parts["encoder"], images, 1)

    def decode(self, latents: Any) -> Any:
        """[B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""
        return self._run(self.parts["decoder"], latents, self.architecture.downsampling_factor)

    def _run(self, network: nn.Module, batch: Any, enlargement: int) -> Any:
        is_array = isinstance(batch, np.ndarray)
        # A copy, since torch takes neither flipped views nor read-only maps of an array.
        given = torch.from_numpy(batch.copy()) if is_array else batch

        def forward(items: Tensor) -> Tensor:
            if self.device.type == "cpu":
                self._require_memory(len(items) * math.prod(items.shape[2:]) * enlargement**2)
            output: Tensor = network(items.to(self.device, self.dtype))
            return output.float()

        with torch.inference_mode():
            result = run_halving(forward, given)
        return result.cpu().numpy() if is_array else result.to(given.device)

    def _require_memory(self, num_pixels: int) -> None:
        """Raise OutOfMemoryError if the features of so many pixels would not fit the machine."""
        features = num_pixels * self.architecture.widths[0] * self.dtype.itemsize
        free = free_memory()
        if free is not None and features * LIVE_FEATURES > free:
            raise torch.OutOfMemoryError("more than the machine has")


def run_halving(function: Any, batch: Tensor) -> Tensor:
    """``function(batch)``; where memory runs out, in two halves, and so on down to single items.

    Raises ComputeError where even one item does not fit.
    """
    try:
        return function(batch)
    except RuntimeError as error:
        out = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not out:
            raise
    if len(batch) == 1:  # outside the handler: the failed run's tensors are freed by now
        size = " x ".join(map(str, batch.shape[-2:]))
        raise ComputeError(
            f"not enough memory on the device for one item of {size}; try a smaller picture (--resize, --crop), --dtype bfloat16, or the model linear"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(batch) // 2
    return torch.cat([run_halving(function, batch[:half]), run_halving(function, batch[half:])])


def load_network(
    path: Path, parts: tuple[str, ...], device: str, dtype: str
) -> tuple[Network, Architecture]:
    """Load a checkpoint; ``device`` and ``dtype`` may be ``auto``.

    Automatic is CUDA in bfloat16 where there is one, else the CPU in float32.
    Raises WeightsError or DeviceError.
    """
    chosen = _device(device)
    if dtype not in ("auto", *DTYPES):
        raise DeviceError(f"dtype {dtype!r}: expected auto or one of {', '.join(DTYPES)}")
    if dtype == "auto":
        dtype = "bfloat16" if chosen.type == "cuda" else "float32"
    networks, architecture = load_networks(path, parts, chosen, DTYPES[dtype])
    return Network(networks, architecture, chosen, DTYPES[dtype]), architecture


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f"device {name!r} is not to be had ({reason}); try --device cpu"
        ) from error
    return device
