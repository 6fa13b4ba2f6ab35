"""Choose how a loaded network runs: by torch only, or by our own kernels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import nn

from auravae_cli.errors import DeviceError
from auravae_cli.model.cpu import native
from auravae_cli.model.cpu.native import PLAIN
from auravae_cli.model.gpu import fused
from auravae_cli.model.gpu.channels_last import Prepared, on_device_of, prepare
from auravae_cli.model.gpu.cuda_graphs import Graphs

CHANNELS_LAST = "channels-last"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = 1e-2


def engine_for(device: torch.device, dtype: torch.dtype) -> str:
    """``channels-last`` on a GPU on which the Triton kernels work, ``native`` on a CPU in float32 for
    which the C kernels could be built; else ``plain``.

    ``AURAVAE_KERNELS=plain`` in the environment says so, too.
    """
    if device.type == "cpu":
        return native.engine_for(str(dtype).removeprefix("torch."))
    if device.type != "cuda" or native.are_turned_off():
        return PLAIN
    return CHANNELS_LAST if kernels_work(device, dtype) else PLAIN


def find_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is CUDA if available. Raises DeviceError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        if "device string" in reason:  # torch lists every device type that it has ever had
            reason = "expected auto, cpu, cuda, cuda:1 or mps"
        raise DeviceError(
            f"device {name!r} is not available ({reason}); try --device cpu"
        ) from error
    return device


@cache
def kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether Triton is installed, can build its kernels (it needs a C compiler), and they are correct."""
    if fused.triton_kernels() is None:
        return False
    x = torch.linspace(-4, 4, 2 * 64 * 15, device=device).view(2, 64, 3, 5).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    one = torch.ones(64, device=device)
    try:
        with on_device_of(x), torch.inference_mode():
            scale, shift = fused.affine(fused.statistics(x), one, one, None, 32, 1e-6)
            found = fused.apply(x, scale, shift, silu=True)
        expected = nn.functional.silu(nn.functional.group_norm(x.float(), 32, one, one, 1e-6))
        return bool((found - expected).abs().max() < TOLERANCE * expected.abs().max())
    except Exception:  # Triton's errors share no base, and any of them means no
        return False


def prepared_halves(
    networks: Mapping[str, nn.Module], dtype: torch.dtype, factor: int
) -> dict[str, Prepared]:
    """Return the networks' halves, optimised for a GPU; ``factor`` is pixels per latent cell, on each axis."""
    areas = {"encoder": 1, "decoder": factor**2}
    return {part: Graphs(prepare(module, dtype), areas[part]) for part, module in networks.items()}
