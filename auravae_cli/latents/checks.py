"""Find values that no latent may have: not finite, or beyond the clamp."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.latents.blocks import blocks
from auravae_cli.latents.dtypes import Array, StoredDtype
from auravae_cli.latents.latent_file import LatentFile


def rows_beyond(latents: LatentFile) -> NDArray[np.bool_]:
    """Return for each latent whether it has values that are not finite or beyond the clamp."""
    values = latents.values if latents.is_shard else latents.values[None]
    beyond = np.zeros(len(values), bool)
    limit = _limit(latents)
    for start, block in blocks(values) if values.size else ():
        if _largest(block) > limit:
            beyond[start : start + len(block)] = (_magnitudes(block) > limit).any(axis=(1, 2, 3))
    return beyond


def bad_values(latents: LatentFile) -> Iterator[str]:
    """Yield what is wrong if values of a latent or shard are not finite or beyond the clamp.

    Values are compared by their bits: without the sign, IEEE floats are ordered like integers of the same bits.
    """
    if not latents.values.size:
        return
    clamp, limit = latents.space.clamp, _limit(latents)
    beyond = not_finite = 0
    first = None
    for start, block in blocks(latents.values if latents.is_shard else latents.values[None]):
        if _largest(block) <= limit:
            continue
        bits = _magnitudes(block)
        infinity = _magnitudes(latents.dtype.from_float32(np.array([np.inf], np.float32)))
        rows = (bits > limit).any(axis=(1, 2, 3))
        first = start + int(rows.argmax()) if first is None else first
        not_finite += int((bits >= infinity).sum())
        beyond += int((bits > limit).sum())
    beyond -= not_finite
    if first is not None:
        key = latents.records[first].key
        place = f", the first in row {first}" + (f", key {key!r}" if key else "")
        yield (
            f"{not_finite} values are NaN or infinite and {beyond} beyond the clamp of {clamp:g}"
            + (place if latents.is_shard else "")
        )


def _limit(latents: LatentFile) -> Any:
    return _bits_of_limit(latents.dtype, latents.space.clamp)


@lru_cache
def _bits_of_limit(dtype: StoredDtype, clamp: float) -> Any:
    """Return the bits of the clamp, or of the largest number if the clamp is beyond it."""
    ends = np.array([clamp, np.inf], np.float32)
    limit, infinity = _magnitudes(dtype.from_float32(ends))
    return min(limit, infinity - 1)


def _largest(values: Array) -> int:
    """Return the largest of `_magnitudes`, computed separately for negative values, by their bits, and others."""
    size = values.dtype.itemsize
    negative = int(values.view(f"u{size}").max()) - (1 << (8 * size - 1))
    return max(negative, int(values.view(f"i{size}").max()))


def _magnitudes(values: Array) -> Array:
    bits = np.dtype(f"u{values.dtype.itemsize}")
    magnitudes: Array = values.view(bits) & bits.type((1 << (8 * bits.itemsize - 1)) - 1)
    return magnitudes
