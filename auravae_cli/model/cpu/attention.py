"""Attention by a kernel in C, attention.c: products of bfloat16, sums and the softmax in float32.

It needs AVX-512 BF16, like `bfloat16`, and serves the blocks of the same networks.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path
from weakref import WeakSet

import torch
from torch import Tensor, nn

from auravae_cli.model.cpu import native
from auravae_cli.model.network.layers import HEAD_CHANNELS, AttentionBlock

SOURCE = Path(__file__).with_suffix(".c")
TOLERANCE = 2e-2
SCALE = math.log2(math.e) / math.sqrt(HEAD_CHANNELS)  # of scores; the kernel uses powers of two

_blocks: WeakSet[nn.Module] = WeakSet()  # those of `use_bfloat16`


class Kernel:
    """The functions of attention.c."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.queries: int = library.queries_at_once()  # 0 if this processor is not supported
        self._memory_size, self._attend = library.memory_size, library.attend
        self._memory_size.restype, self._memory_size.argtypes = ctypes.c_int64, [ctypes.c_int64]
        address, size = ctypes.c_void_p, ctypes.c_int64
        self._attend.restype = None
        self._attend.argtypes = [address, address, address, address, size, size, address]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Compute `scaled_dot_product_attention`: [B, heads, queries, 64] float32 of [B, heads, cells, 64].

        ``keys`` and ``values`` are bfloat16, contiguous.
        """
        batch, heads, number, _ = queries.shape
        rounded = -(-number // self.queries) * self.queries
        scaled = queries.new_zeros((batch, heads, rounded, HEAD_CHANNELS), dtype=keys.dtype)
        scaled[:, :, :number] = queries * SCALE
        out = torch.empty(scaled.shape)
        memory = torch.empty(self._memory_size(number))
        for image in range(batch):
            for head in range(heads):
                places = (x[image, head].data_ptr() for x in (scaled, keys, values, out))
                self._attend(*places, number, keys.shape[2], memory.data_ptr())
        return out[:, :, :number]


@cache
def kernel() -> Kernel | None:
    """Return the kernel for this processor, or None."""
    found = native.find(SOURCE, Kernel, is_right)
    return found if isinstance(found, Kernel) else None


def use_bfloat16(network: nn.Module) -> None:
    """Compute a network's attention this way from now on, if there is a kernel."""
    _blocks.update(x for x in network.modules() if isinstance(x, AttentionBlock))


def kernel_for(block: AttentionBlock, x: Tensor) -> Kernel | None:
    """Return the kernel for a block's attention of such features; None if torch computes it."""
    is_float = (x.dtype, x.device.type) == (torch.float32, "cpu")
    return kernel() if block in _blocks and is_float else None


def is_right(found: Kernel) -> bool:
    """Return whether attention over a few cells agrees with the definition."""
    if not found.queries:
        return False
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, cells, HEAD_CHANNELS, generator=generator) for cells in (5, 300, 300)
    )
    expected = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(HEAD_CHANNELS), 3) @ v
    result = found.attend(q, k.bfloat16(), v.bfloat16())
    return bool((result - expected).abs().max() < TOLERANCE * expected.abs().max())
