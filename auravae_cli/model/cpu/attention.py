"""Attention by a kernel in C, attention.c: products of bfloat16, sums and the softmax in float32.

It needs AVX-512 BF16, like `bfloat16`, and serves the same networks.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from auravae_cli.model.cpu import native

SOURCE = Path(__file__).with_suffix(".c")
TOLERANCE = 2e-2
is_right = partial(native.attends, tolerance=TOLERANCE)


@cache
def kernel() -> native.Attention | None:
    """Return the kernel for this processor, or None."""
    found = native.find(SOURCE, native.Attention, is_right)
    return found if isinstance(found, native.Attention) else None
