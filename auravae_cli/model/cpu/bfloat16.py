"""The CPU's kernels in C for products of bfloat16, bfloat16.c: for weights that the flips fix.

Like `native`, whose `KernelCall` they use, without torch. They need AVX-512 BF16: on other processors,
and for weights that are not tied, there are none. Processors that have AMX, too, multiply in its tiles.

Sums and differences of blocks, and of neighbours along an axis, are even or odd under each flip::

    blocks   e, h, v, hv  => four parities (a Hadamard transform)
    taps     -1, 0, 1     => middle, sum of both sides, difference of both sides (stride 1)
             0, 1         => sum, difference (the step down)

A tied weight connects only inputs and outputs of the same parity: a quarter of all combinations.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from auravae_cli.latents.dtypes import BFLOAT16
from auravae_cli.model.cpu import native

SOURCE = Path(__file__).with_suffix(".c")
TOLERANCE = 2e-2  # of the largest number
ORDER = 4  # of the group: element 2v + h flips v times down and h times across
_SIGNS = np.array([[(-1) ** (p & k).bit_count() for k in range(ORDER)] for p in range(ORDER)])
# By the taps that are read: the coefficients of middle, sum and difference.
_WAYS = {
    1: np.ones((1, 1)),
    2: np.array([[0.5, 0.5], [-0.5, 0.5]]),
    3: np.array([[0, 1, 0], [0.5, 0, 0.5], [-0.5, 0, 0.5]]),
}


class Products(native.Convolutions):
    """The convolutions of bfloat16.c, in vectors or in the tiles of AMX.

    ``pairs_at_once`` is how many pairs of bfloat16 they multiply together, on which the layout of weights depends.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self._library = library

    @property
    def pairs_at_once(self) -> int:
        """1 for vectors, 16 for tiles."""
        return int(self._library.pairs_at_once())

    @property
    def has_tiles(self) -> bool:
        """Whether they multiply in tiles."""
        return self.pairs_at_once > 1

    def use_tiles(self, wanted: bool) -> bool:
        """Use tiles from now on, or do not; return whether they are used: the processor may have none."""
        return bool(self._library.use_tiles(wanted))


@cache
def kernels() -> Products | None:
    """Return the kernels for this processor, or None."""
    found = native.find(SOURCE, Products, are_right)
    return found if isinstance(found, Products) else None


def taps(weights: np.ndarray, stride: int) -> int:
    """Return the taps read of a kernel [O, I, k, k]: tied downsampling reads its upper left 2 x 2."""
    size = weights.shape[2]
    return size - 1 if stride == 2 else size


def transform(weights: np.ndarray, stride: int, found: Products) -> np.ndarray:
    """Transform tied kernels [O, I, k, k] => [4, groups, pairs / n, channels_out, n * 2], bfloat16 words.

    The groups are of ``found.channels_out`` outputs, and n is ``found.pairs_at_once``: the last pairs are filled
    up with zeros. The first block of outputs is enough, since the flips give the others from it.
    """
    channels_out, together = found.channels_out, found.pairs_at_once
    outputs, inputs = (size // ORDER for size in weights.shape[:2])
    size = taps(weights, stride)
    ways, places = _WAYS[size], _places(size)
    first = weights[:outputs, :, :size, :size].reshape(outputs, ORDER, inputs, size, size)
    # A quarter, so that blocks come back unscaled.
    parities = [_sum(signs / ORDER, first.swapaxes(0, 1)) for signs in _SIGNS]
    rows = [[_sum(way, np.moveaxis(p, 3, 0)) for way in ways] for p in parities]
    combined = [
        [[_sum(way, np.moveaxis(row, 2, 0)) for row in each] for way in ways] for each in rows
    ]
    made = np.stack([np.stack([combined[p][a][b] for p, a, b in places[q]]) for q in range(ORDER)])
    # [parity, place, o, c] => [parity, group, pairs, channel, pair, 2]
    groups = outputs // channels_out
    made = made.reshape(ORDER, -1, groups, channels_out, inputs // 2, 2).transpose(0, 2, 3, 1, 4, 5)
    made = made.reshape(ORDER, groups, channels_out, -1, 2)
    missing = -made.shape[3] % together
    made = np.pad(made, ((0, 0), (0, 0), (0, 0), (0, missing), (0, 0)))
    made = made.reshape(ORDER, groups, channels_out, -1, together * 2).swapaxes(2, 3)
    return BFLOAT16.from_float32(np.ascontiguousarray(made))


def _sum(factors: np.ndarray, terms: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of ``terms``, each times its factor, in float32."""
    products = [np.float32(f) * x for f, x in zip(factors, terms, strict=True) if f]
    return functools.reduce(np.add, products)


def _places(size: int) -> list[list[tuple[int, int, int]]]:
    """Return for each parity of the result its combinations (parity of the input, down, across), in order."""
    odd = len(_WAYS[size]) - 1 if size > 1 else size
    found: list[list[tuple[int, int, int]]] = [[] for _ in range(ORDER)]
    for p in range(ORDER):
        for a in range(len(_WAYS[size])):
            for b in range(len(_WAYS[size])):
                found[p ^ (a == odd) << 1 ^ (b == odd)].append((p, a, b))
    return found


def are_right(found: Products) -> bool:
    """Return whether they are right on this processor: in tiles, or else in vectors, which are used from then on."""
    if not found.channels_out:
        return False
    if found.use_tiles(True) and _agree(found):
        return True
    found.use_tiles(False)
    return _agree(found)


def _agree(found: Products) -> bool:
    """Return whether convolutions of a small map agree with the definition."""
    generator = np.random.default_rng(0)
    groups = 3 if found.has_tiles else 1  # of channels: two that tiles take together, and one
    channels = groups * ORDER * found.channels_out
    x = generator.standard_normal((channels, 6, 40)).astype(np.float32)
    bias = generator.standard_normal(channels // ORDER).astype(np.float32).repeat(ORDER)
    bias = np.ascontiguousarray(bias.reshape(-1, ORDER).T).ravel()
    for function, size, stride in (
        (found.convolve, 3, 1),
        (found.halve, 3, 2),
        (found.mix, 1, 1),
    ):
        weights = _tied(generator, channels, size, stride)
        border = ((0, 0), (1, 1), (1, 1)) if stride == 1 else ((0, 0), (0, 1), (0, 1))
        padded = np.pad(x, border) if size == 3 else x
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
        windows = windows[:, ::stride, ::stride]
        expected = np.tensordot(weights, windows, ((1, 2, 3), (0, 3, 4))) + bias[:, None, None]
        out = native.run(function, x, transform(weights, stride, found), bias, expected)
        if not np.abs(out - expected).max() < TOLERANCE * np.abs(expected).max():
            return False
    return True


def _tied(generator: np.random.Generator, channels: int, size: int, stride: int) -> np.ndarray:
    """Return random kernels that the flips fix."""
    each, read = channels // ORDER, size - (stride == 2)
    first = generator.standard_normal((each, ORDER, each, read, read)).astype(np.float32)
    blocks = np.arange(ORDER)
    axes = ((-2,) * (g >> 1) + (-1,) * (g & 1) for g in range(ORDER))
    whole = np.stack([np.flip(first[:, blocks ^ g], flipped) for g, flipped in enumerate(axes)])
    more = size - read
    return np.pad(
        whole.reshape(channels, channels, read, read), ((0, 0), (0, 0), (0, more), (0, more))
    )
