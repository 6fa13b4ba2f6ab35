"""A memory of what was made last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Values by number, made when they are asked for; the latest stay, up to a total ``budget``.

    Has no lock, since a fork could copy it held: at worst two threads make the same value.
    """

    def __init__(
        self, make: Callable[[int], Value], budget: int, cost: Callable[[Value], int] | None = None
    ) -> None:
        self._make, self._budget, self._cost = make, budget, cost or _one
        self._kept: OrderedDict[int, Value] = OrderedDict()
        self._total = 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": OrderedDict(), "_total": 0}

    def __call__(self, number: int) -> Value:
        try:
            self._kept.move_to_end(number)
            return self._kept[number]
        except KeyError:
            value = self._kept[number] = self._make(number)
        self._total += self._cost(value)
        while self._total > self._budget and len(self._kept) > 1:
            self._total -= self._cost(self._kept.popitem(last=False)[1])
        return value


def _one(_: Any) -> int:
    return 1
