"""How a model's channels behave under a flip, found from data: has its latent hidden parities?

For a flip g, E(gx) is compared with the mirrored E(x), whose channels are permuted and negated so that
both agree best::

    channel i of E(gx)  ~  sign[i] * channel source[i] of E(x), mirrored

This is the best signed permutation by least squares, an assignment problem on the matrix of products.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
MOST_CHANNELS = 64  # whose products are kept: more would make results files large


@dataclass(frozen=True)
class SignedPermutation:
    """An action on channels: channel i becomes ``signs[i]`` times channel ``sources[i]``."""

    sources: tuple[int, ...]
    signs: tuple[int, ...]

    @classmethod
    def of_signs(cls, signs: Sequence[int]) -> SignedPermutation:
        """Return the action that permutes nothing."""
        return cls(tuple(range(len(signs))), tuple(signs))

    def act(self, latent: Floats) -> Floats:
        """Apply it to the channels of [C, h, w]."""
        signs = np.array(self.signs, latent.dtype)[:, None, None]
        acted: Floats = latent[list(self.sources)] * signs
        return acted

    @property
    def moved(self) -> int:
        """The number of channels that another one takes the place of."""
        return sum(source != place for place, source in enumerate(self.sources))

    @property
    def negated(self) -> int:
        """The number of channels whose sign changes."""
        return sum(sign < 0 for sign in self.signs)


@dataclass(frozen=True)
class Products:
    """Sums over cells and pictures: ``matrix`` [C, C] of products of channels of E(gx) and of the mirrored
    E(x), and the energies |E(gx)|^2 and |E(x)|^2."""

    matrix: NDArray[np.float64]
    flipped: float
    plain: float

    @classmethod
    def of(cls, found: Floats, mirrored: Floats) -> Products:
        """Return those of one picture, two latents [C, h, w]."""
        a, b = (z.reshape(len(z), -1).astype(np.float64) for z in (found, mirrored))
        return cls(a @ b.T, float(np.square(a).sum()), float(np.square(b).sum()))

    def __add__(self, other: Products) -> Products:
        return Products(
            self.matrix + other.matrix, self.flipped + other.flipped, self.plain + other.plain
        )

    def best(self) -> SignedPermutation:
        """Return the signed permutation that brings the mirrored E(x) nearest to E(gx)."""
        sources = assign(np.abs(self.matrix))
        signs = [1 if self.matrix[i, j] >= 0 else -1 for i, j in enumerate(sources)]
        return SignedPermutation(tuple(map(int, sources)), tuple(signs))

    def error(self, action: SignedPermutation) -> float:
        """Return |E(gx) - action of the mirrored E(x)| / |E(x)|, over all pictures."""
        agreement = sum(
            sign * self.matrix[place, source]
            for place, (source, sign) in enumerate(zip(action.sources, action.signs, strict=True))
        )
        square = max(0.0, self.flipped + self.plain - 2 * float(agreement))
        return (square / self.plain) ** 0.5 if self.plain else 0.0

    def to_json(self) -> dict[str, Any] | None:
        """Return what a results file keeps; None for more than `MOST_CHANNELS` channels."""
        if len(self.matrix) > MOST_CHANNELS:
            return None
        text = base64.b64encode(self.matrix.astype("<f8").tobytes()).decode()
        return {"matrix": text, "flipped": self.flipped, "plain": self.plain}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Products:
        """Parse the result of `to_json`. Raises ValueError."""
        values = np.frombuffer(base64.b64decode(content["matrix"]), "<f8")
        side = round(len(values) ** 0.5)
        if side * side != len(values) or not side:
            raise ValueError(f"expected a square matrix, found {len(values)} numbers")
        return cls(values.reshape(side, side), content["flipped"], content["plain"])


def assign(gains: Floats) -> Integers:
    """Return for each row of [n, n] its own column, so that the sum of gains is the largest.

    By shortest augmenting paths with potentials (the Hungarian method), in O(n^3).
    """
    costs = gains.max() - gains.astype(np.float64)
    n = len(costs)
    rows, columns = np.zeros(n + 1), np.zeros(n + 1)  # potentials; the last column is a start
    row_of = np.full(n + 1, -1)
    for row in range(n):
        row_of[n], column = row, n
        distance, previous = np.full(n, np.inf), np.full(n, n)
        used = np.zeros(n + 1, bool)
        while row_of[column] >= 0:
            used[column] = True
            here = row_of[column]
            free = ~used[:n]
            through = costs[here] - rows[here] - columns[:n]
            shorter = free & (through < distance)
            distance[shorter], previous[shorter] = through[shorter], column
            nearest = int(np.where(free, distance, np.inf).argmin())
            step = distance[nearest]
            rows[row_of[used]] += step
            columns[used] -= step
            distance[free] -= step
            column = nearest
        while column != n:
            row_of[column] = row_of[previous[column]]
            column = int(previous[column])
    columns_of = np.empty(n, np.int64)
    columns_of[row_of[:n]] = np.arange(n)
    return columns_of
