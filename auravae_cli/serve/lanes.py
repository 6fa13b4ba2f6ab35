"""The queue for the model: equal shapes in batches, and no small item behind a large one.

A lane is a thread. It serves its queues in turn, one batch of each. On a CPU, small and large items have
lanes of their own, which share the cores; on a GPU one lane takes them alternately.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import try_batch

Run = Callable[[Codec, list[Any]], Any]  # returns one result per item


@dataclass(eq=False)
class Turn:
    """An item in the queue. Those with equal ``run`` and ``shape`` may share a batch; never if None."""

    run: Run
    shape: Hashable
    item: Any
    future: Future[Any] = field(default_factory=Future)


class Lanes:
    """Threads that run turns on codecs of one model, until they are closed.

    A batch has up to ``batch_size`` items, and waits up to ``linger`` seconds to fill. ``observe`` gets
    the size and the seconds of each batch.
    """

    def __init__(
        self,
        codecs: Sequence[Codec],
        batch_size: int,
        linger: float,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.batch_size, self.linger, self.observe = batch_size, linger, observe
        self._small, self._large = deque[Turn](), deque[Turn]()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(codec, queues), daemon=True)
            for codec in codecs
            for queues in self._queues_of(codec)
        ]
        for thread in self._threads:
            thread.start()

    def _queues_of(self, codec: Codec) -> list[list[deque[Turn]]]:
        if codec.device == "cpu":
            return [[self._small], [self._large]]
        return [[self._small, self._large]]

    @property
    def waiting(self) -> int:
        """The number of turns that have not begun."""
        return len(self._small) + len(self._large)

    def submit(self, turn: Turn, is_large: bool) -> Future[Any]:
        """Queue a turn. Cancelling its future removes it from the queue."""
        queue = self._large if is_large else self._small
        with self._changed:
            if self._closed:
                raise RuntimeError("the lanes are closed")
            queue.append(turn)
            self._changed.notify_all()
        turn.future.add_done_callback(partial(self._forget, queue))
        return turn.future

    def close(self) -> None:
        """Finish what is queued, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, queue: deque[Turn], future: Future[Any]) -> None:
        # Without the turn, which holds the future: a cycle would keep pictures for long.
        if future.cancelled():
            with self._changed:
                for turn in [turn for turn in queue if turn.future is future]:
                    queue.remove(turn)

    def _work(self, codec: Codec, queues: list[deque[Turn]]) -> None:
        while batch := self._next(queues):
            live = [turn for turn in batch if turn.future.set_running_or_notify_cancel()]
            if live:
                started = time.perf_counter()
                run_batch(codec, live)
                self.observe(len(live), time.perf_counter() - started)
            del batch, live  # an idle lane must not keep pictures

    def _next(self, queues: list[deque[Turn]]) -> list[Turn]:
        """Return the next batch; empty if the lanes are closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: any(queues) or self._closed)
            queue = next((queue for queue in queues if queue), None)
            if queue is None:
                return []
            queues.append(queues.pop(queues.index(queue)))  # the others are next
            first = queue.popleft()

            def others() -> list[Turn]:
                alike = (t for t in queue if (t.run, t.shape) == (first.run, first.shape))
                return [turn for turn, _ in zip(alike, range(self.batch_size - 1), strict=False)]

            if self.batch_size > 1 and first.shape is not None:
                self._changed.wait_for(
                    lambda: len(others()) == self.batch_size - 1 or self._closed, self.linger
                )
                for turn in (found := others()):
                    queue.remove(turn)
                return [first, *found]
            return [first]


def run_batch(codec: Codec, turns: Sequence[Turn]) -> None:
    """Run a batch. If it fails, run each turn alone, so that only the culprit fails."""

    def work(some: Sequence[Turn]) -> Sequence[Any]:
        results: Sequence[Any] = some[0].run(codec, [turn.item for turn in some])
        return results

    try:
        outcomes = try_batch(turns, work, lambda turn, error: error)
    except Exception as error:  # a bug, or the device is lost: these turns fail, the lane continues
        outcomes = [error] * len(turns)
    for turn, outcome in zip(turns, outcomes, strict=True):
        if isinstance(outcome, Exception):
            turn.future.set_exception(outcome)
        else:
            turn.future.set_result(outcome)
