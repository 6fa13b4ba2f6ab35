"""The number formats in which latents are stored, and how numpy holds each.

numpy has no bfloat16, so such latents are held as raw 16-bit words (uint16). That suffices for the
group action, which only moves words and flips sign bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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

    @classmethod
    def parse(cls, name: str) -> StoredDtype:
        """Return the storage format of this name. Raises ValueError for any other name."""
        if name not in STORED_DTYPES:
            raise ValueError(f"expected one of {', '.join(STORED_DTYPES)}, found {name!r}")
        return STORED_DTYPES[name]

    def from_float32(self, values: NDArray[np.float32]) -> Array:
        """Round to the nearest stored value, ties to even; values out of range become infinity."""
        if self.name == "bfloat16":
            words = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
            rounded = (words + np.uint32(0x7FFF) + ((words >> 16) & 1)) >> 16
            quiet_nan = (words >> 16) | np.uint32(0x0040)
            return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)
        with np.errstate(over="ignore"):
            return values.astype(self.numpy)

    def to_float32(self, stored: Array) -> NDArray[np.float32]:
        """Return the stored values, exactly."""
        if self.name == "bfloat16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        if self.name == "float16":  # numpy's own conversion takes five times as long
            return np.take(_all_halves(), stored.view(np.uint16))
        return stored.astype(np.float32)

    def exactly(self, values: NDArray[np.float32]) -> Array | None:
        """Return the stored values if none needs rounding, otherwise None."""
        if self.name == "float32":
            return np.ascontiguousarray(values, dtype=self.numpy)
        words = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        if self.name == "bfloat16":
            return None if (words & 0xFFFF).any() else (words >> 16).astype(np.uint16)
        if np.bitwise_or.reduce(words, axis=None) & 0x1FFF:  # more digits than any float16 has
            return None
        magnitudes = words & np.uint32(0x7FFFFFFF)
        if magnitudes.max(initial=0) > _LARGEST:
            return None
        halves = ((magnitudes - _BIAS) >> 13 | (words >> 16) & 0x8000).astype("<u2")
        small = np.flatnonzero(magnitudes < _LEAST_NORMAL)  # few, so numpy converts them
        parts = values.reshape(-1)[small]
        rounded = parts.astype(self.numpy)
        halves.reshape(-1)[small] = rounded.view(np.uint16)
        return (
            halves.view(self.numpy) if np.array_equal(rounded.astype(np.float32), parts) else None
        )


FLOAT16 = StoredDtype("float16", "F16", np.dtype("<f2"))
BFLOAT16 = StoredDtype("bfloat16", "BF16", np.dtype("<u2"))
FLOAT32 = StoredDtype("float32", "F32", np.dtype("<f4"))
STORED_DTYPES = {dtype.name: dtype for dtype in (FLOAT16, BFLOAT16, FLOAT32)}

# float16, as bits of float32: the smallest normal number, the largest, the difference of exponents
_LEAST_NORMAL, _LARGEST, _BIAS = np.uint32(0x38800000), np.uint32(0x477FE000), np.uint32(0x38000000)


@lru_cache(maxsize=1)
def _all_halves() -> NDArray[np.float32]:
    """Return every float16 as float32, indexed by its bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
