"""Iterate over stacks of latents, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

from auravae_cli.latents.dtypes import Array

_BLOCK_BYTES = 4 << 20


def blocks(values: Array) -> Iterator[tuple[int, Array]]:
    """Yield blocks of rows of [N, C, h, w], a few megabytes each, with the index of the first row."""
    at_once = max(1, _BLOCK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(values), at_once):
        yield start, values[start : start + at_once]
