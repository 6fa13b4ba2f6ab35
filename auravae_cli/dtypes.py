"""The number formats in which latents are stored, and how numpy holds each.

numpy has no bfloat16: such latents are held as their raw 16-bit words (uint16). The group
action needs no more than that, since it only moves words and flips sign bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class StoredDtype:
    """A storage format: our name, safetensors' code, and the numpy type that holds it."""

    name: str
    code: str
    numpy: np.dtype[Any]

    def from_float32(self, values: NDArray[np.float32]) -> Array:
        """Round to the nearest stored value, ties to even; beyond the range becomes infinity."""
        if self.name == "bfloat16":
            words = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
            rounded = (words + np.uint32(0x7FFF) + ((words >> 16) & 1)) >> 16
            quiet_nan = (words >> 16) | np.uint32(0x0040)
            return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)
        with np.errstate(over="ignore"):
            return values.astype(self.numpy)

    def to_float32(self, stored: Array) -> NDArray[np.float32]:
        """The stored values, exactly."""
        if self.name == "bfloat16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32)


FLOAT16 = StoredDtype("float16", "F16", np.dtype("<f2"))
BFLOAT16 = StoredDtype("bfloat16", "BF16", np.dtype("<u2"))
FLOAT32 = StoredDtype("float32", "F32", np.dtype("<f4"))
STORED_DTYPES = {dtype.name: dtype for dtype in (FLOAT16, BFLOAT16, FLOAT32)}
