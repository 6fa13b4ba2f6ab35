"""How a long call says how far it is: through a plain callable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

Step = TypeVar("Step")

# Called with None, 0 and the total before anything is done, and then with each step, how much is
# done, and the total. What it raises ends the call; what was finished stays.
Progress: TypeAlias = Callable[[Step | None, int, int], None]


def follow(steps: Iterable[Step], total: int, progress: Progress[Step] | None) -> list[Step]:
    """All the steps, told one by one as they come."""
    found: list[Step] = []
    if progress is not None:
        progress(None, 0, total)
    for number, step in enumerate(steps, 1):
        found.append(step)
        if progress is not None:
            progress(step, number, total)
    return found
