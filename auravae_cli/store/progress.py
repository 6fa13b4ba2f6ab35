"""How far a store is filled, in bytes of its sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from auravae_cli.machine.progress import Progress
from auravae_cli.store.commit import ShardOutcome


class Row(Protocol):
    """A step within a shard: a row is there, made from so many bytes."""

    @property
    def size(self) -> int:
        """Bytes of the row's source."""


Step = TypeVar("Step", bound=Row)


def follow_shards(
    steps: Iterable[Step], total: int, progress: Progress[Step] | None
) -> list[ShardOutcome]:
    """Collect the outcomes of all shards, and report every step with the bytes done so far."""
    outcomes: list[ShardOutcome] = []
    settled = under_way = 0
    if progress is not None:
        progress(None, 0, total)
    for step in steps:
        if isinstance(step, ShardOutcome):
            outcomes.append(step)
            settled, under_way = settled + step.source_size, 0
        else:
            under_way += step.size
        if progress is not None:
            progress(step, min(total, settled + under_way), total)
    return outcomes
