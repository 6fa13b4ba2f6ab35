"""A thread-safe LRU cache with a total budget."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """Values by number, made on demand. The most recently used ones are kept, up to a total ``budget``.

    Any number of threads may call it. At worst two of them make the same value, and one of the two is kept.
    """

    def __init__(
        self, make: Callable[[int], Value], budget: int, cost: Callable[[Value], int] | None = None
    ) -> None:
        self._make, self._budget, self._cost = make, budget, cost or _one
        self._kept: OrderedDict[int, Value] = OrderedDict()
        self._total = 0
        self._locks: dict[int, threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": OrderedDict(), "_total": 0, "_locks": {}}

    def __call__(self, number: int) -> Value:
        with self._lock():
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        value = self._make(number)
        with self._lock():
            if number in self._kept:  # another thread was faster
                return self._kept[number]
            self._kept[number] = value
            self._total += self._cost(value)
            while self._total > self._budget and len(self._kept) > 1:
                self._total -= self._cost(self._kept.popitem(last=False)[1])
        return value

    def _lock(self) -> threading.Lock:
        """Return this process's lock: a fork can copy a lock held by another thread, which nobody would release."""
        return self._locks.setdefault(os.getpid(), threading.Lock())


def _one(_: Any) -> int:
    return 1
