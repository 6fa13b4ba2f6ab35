"""What can be wrong with a file of latents that could be read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from auravae_cli.dtypes import Array
from auravae_cli.latentfile import LatentFile
from auravae_cli.pipeline.storefiles import blocks
from auravae_cli.store import Output, Settings, output_name


def disagreements(
    shard: str, output: Output, settings: Settings, latents: LatentFile
) -> Iterator[str]:
    """Whether a header says what the settings and the manifest say."""
    for what, found, expected in (
        ("shape", list(latents.values.shape), list(output.shape)),
        ("name", output.name, output_name(shard, (latents.values.shape[-2:]))),
        ("dtype", latents.dtype.name, settings.stored_dtype.name),
        ("latent space", latents.space, settings.space),
    ):
        if found != expected:
            yield f"its {what} is {found}, expected {expected}"


def bad_values(latents: LatentFile) -> Iterator[str]:
    """Whether all values are finite and within the clamp, by their bits.

    Without the sign, floats of any IEEE format are ordered as the integers of the same bits.
    """
    if not latents.values.size:
        return
    dtype, clamp = latents.dtype, np.float32(latents.space.clamp)
    limit, infinity = (_magnitudes(dtype.from_float32(np.array([x]))) for x in (clamp, np.inf))
    beyond = not_finite = 0
    first = None
    for start, block in blocks(latents.values):
        bits = _magnitudes(block)
        if bits.max() <= limit[0]:
            continue
        rows = (bits > limit).any(axis=(1, 2, 3))
        first = start + int(rows.argmax()) if first is None else first
        not_finite += int((bits >= infinity).sum())
        beyond += int((bits > limit).sum())
    beyond -= not_finite
    if first is not None:
        key = latents.records[first].key
        yield (
            f"{not_finite} values are NaN or infinite and {beyond} beyond the clamp of {clamp:g}, "
            f"the first in row {first}" + (f", key {key!r}" if key else "")
        )


def _magnitudes(values: Array) -> Array:
    bits = np.dtype(f"u{values.dtype.itemsize}")
    magnitudes: Array = values.view(bits) & bits.type((1 << (8 * bits.itemsize - 1)) - 1)
    return magnitudes
