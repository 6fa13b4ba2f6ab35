"""Where a network runs, in which number format, and by which engine.

Decided here alone, so that a dry run predicts what a real run does. torch is asked only where the
machine may have a GPU.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from auravae_cli.errors import DeviceError
from auravae_cli.model.cpu import bfloat16, native

ITEM_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # what CUDA and ROCm need


@dataclass(frozen=True)
class Placement:
    """A device, a number format, and how a network runs there (see `engine`)."""

    device: str = "cpu"
    dtype: str = "float32"
    engine: str = native.PLAIN

    @property
    def is_on_cpu(self) -> bool:
        """Whether the device is no GPU."""
        return self.device.partition(":")[0] == "cpu"

    @property
    def has_products(self) -> bool:
        """Whether products alone are in ``dtype``, by a CPU's own kernels (see `cpu.bfloat16`)."""
        return self.engine == native.NATIVE and self.dtype == "bfloat16"

    @property
    def batch_size(self) -> int:
        """How many pictures of one size run best at once: larger batches gain nothing on a CPU."""
        return 1 if self.is_on_cpu else 8


def place(device: str, dtype: str, is_tied: bool = False) -> Placement:
    """Where networks run for a ``device`` and a ``dtype`` that may be ``auto``.

    ``is_tied`` says that the flips fix the weights, for which a CPU may have kernels of its own in bfloat16.
    Automatic is CUDA in bfloat16 where there is one, else the CPU: in bfloat16 if its kernels have that for
    the weights, which takes half the time (docs/performance.md), else in float32.

    Raises:
        DeviceError: no such device, or no such number format.
    """
    if dtype not in ("auto", *ITEM_SIZES):
        raise DeviceError(f"dtype {dtype!r}: expected auto or one of {', '.join(ITEM_SIZES)}")
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return _on_cpu("cpu", dtype, is_tied)
    from auravae_cli.model.engine import DTYPES, engine_for, find_device

    found = find_device(device)
    if found.type == "cpu":
        return _on_cpu(str(found), dtype, is_tied)
    number = dtype if dtype != "auto" else "bfloat16" if found.type == "cuda" else "float32"
    return Placement(str(found), number, engine_for(found, DTYPES[number]))


def _on_cpu(device: str, dtype: str, is_tied: bool) -> Placement:
    if is_tied and dtype in ("auto", "bfloat16") and native.kernels() and bfloat16.kernels():
        return Placement(device, "bfloat16", native.NATIVE)
    number = "float32" if dtype == "auto" else dtype
    return Placement(device, number, native.engine_for(number))


def kernels_of(where: Placement) -> str:
    """Return what last bits depend on beside the number format: the engine, and on a CPU its instructions.

    torch chooses its own by the processor: for these it has the name of a capability.
    """
    if where.engine == native.NATIVE:
        kernels = native.kernels()
        assert kernels is not None
        products = bfloat16.kernels() if where.has_products else None
        tiles = ", tiles" if products and products.has_tiles else ""
        return f"{where.engine} ({platform.machine()}, {kernels.lanes} lanes{tiles})"
    if where.is_on_cpu:
        import torch

        return f"{where.engine} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return where.engine


def may_have_gpu() -> bool:
    """Whether torch has to be asked for one: False where the system has none that it could use."""
    if sys.platform == "darwin":
        return False  # `auto` takes CUDA or the CPU
    return sys.platform != "linux" or any(os.path.exists(path) for path in _GPUS)
