"""Reused memory for feature maps.

The first touch of new pages costs a third of the time of the convolution that fills them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from auravae_cli.model.cpu.lazy_maps import LazyMap, StoredMap

MOST_KEPT = 1 << 31  # bytes kept ready for the next run


class Buffers:
    """Memory that no map of a run uses at the moment."""

    def __init__(self) -> None:
        self._spare: list[Any] = []

    @property
    def nbytes(self) -> int:
        """The bytes held ready."""
        return sum(spare.nbytes for spare in self._spare)

    def take(self, like: LazyMap, limit: int) -> Any:
        """Return uncleared flat memory for such a map: a spare piece of up to twice its size, or new memory.

        ``limit`` is what this and the spare memory may take together, in bytes.
        """
        count = math.prod(like.shape)
        self.trim(limit if self._fitting(count) else limit - count * like.half.itemsize)
        fitting = self._fitting(count)
        if not fitting:
            return like.half.empty(count)
        best = min(fitting, key=len)
        self._spare = [spare for spare in self._spare if spare is not best]
        return best

    def _fitting(self, count: int) -> list[Any]:
        return [spare for spare in self._spare if count <= len(spare) <= 2 * count]

    def trim(self, limit: int) -> None:
        """Release the smallest spare pieces, the cheapest to make again, until ``limit`` bytes are left."""
        self._spare.sort(key=len, reverse=True)
        while self._spare and self.nbytes > limit:
            self._spare.pop()

    def clear(self) -> None:
        """Release all spare memory."""
        self._spare.clear()

    def give(self, spent: StoredMap) -> None:
        """Take back the memory of a map that is no longer needed."""
        self._spare.append(spent.memory)


class Supply:
    """Buffers for one run after the other; concurrent runs in several threads have their own.

    What is left of one run is held ready for the next. This needs no lock, which a fork could copy while
    it is held: a deque appends and pops in one step.
    """

    def __init__(self) -> None:
        self._ready: deque[Buffers] = deque(maxlen=1)

    @property
    def nbytes(self) -> int:
        """The bytes held ready."""
        return sum(buffers.nbytes for buffers in tuple(self._ready))

    @contextmanager
    def lent(self) -> Iterator[Buffers]:
        """Yield buffers that nobody else has meanwhile."""
        try:
            buffers = self._ready.pop()
        except IndexError:  # none yet, or another run has them
            buffers = Buffers()
        yield buffers  # after an error none of them is used again
        if buffers.nbytes <= MOST_KEPT:
            self._ready.append(buffers)

    def clear(self) -> None:
        """Release everything held ready."""
        self._ready.clear()
