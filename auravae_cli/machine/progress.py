"""How a long call says how far it is: through a plain callable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

Step = TypeVar("Step")

# Called with None, 0 and the total before anything is done, and then with each step, how much is
# done, and the total. What it raises ends the call; what was finished stays. One with a method
# ``begin`` also hears what begins between two steps: a `Phase`, and once the work ahead.
Progress: TypeAlias = Callable[[Step | None, int, int], None]


@dataclass(frozen=True)
class Phase:
    """Something begins that takes a while; ``seconds`` is how long it should take, if that is known."""

    text: str
    seconds: float | None = None


def follow(steps: Iterable[Step], total: int, progress: Progress[Step] | None) -> list[Step]:
    """Collect all steps, and report each as it comes."""
    found: list[Step] = []
    if progress is not None:
        progress(None, 0, total)
    for number, step in enumerate(steps, 1):
        found.append(step)
        if progress is not None:
            progress(step, number, total)
    return found


def begin(progress: Any, what: Any) -> None:
    """Tell a progress that listens what begins."""
    if wants_stages(progress):
        progress.begin(what)


def wants_stages(progress: Any) -> bool:
    """Return whether a progress also hears what begins."""
    return hasattr(progress, "begin")
