"""CUDA graphs: run small pictures without gaps between hundreds of kernel launches.

A run of a network at one shape is recorded once and then replayed as a whole. That pays if the GPU
finishes a step before the processor has launched the next; for larger pictures it gains nothing, and
would hold their memory.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MOST_POSITIONS = (
    512 * 512
)  # pixels in a batch up to which launches take a noticeable share of the time
MOST_GRAPHS = 4
FIRST_RUNS = 2  # of a shape before it is recorded: a shape that occurs once is not worth it

Function = Callable[[Tensor], Tensor]


class Recorded:
    """A recorded run of ``function`` on a GPU at the shape of ``x``, replayed on other values."""

    def __init__(self, function: Function, x: Tensor, pool: Any) -> None:
        self._given = x.clone()
        stream = torch.cuda.Stream(x.device)
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):  # what only a first run does must not be recorded
            function(self._given)
        torch.cuda.current_stream(x.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may keep working: their work is neither recorded nor does it break the recording.
        recording = torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local")
        with torch.cuda.device(x.device), recording:
            self._result = function(self._given)
        self.pool = self._graph.pool()

    def __call__(self, x: Tensor) -> Tensor:
        self._given.copy_(x)
        self._graph.replay()
        return self._result.clone()


class Turns:
    """Serialises runs of several threads, whose GPU streams are not synchronised with each other."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._done: torch.cuda.Event | None = None

    @contextmanager
    def turn(self, x: Tensor) -> Iterator[None]:
        """Yield while no other thread runs, after the work that others have queued on the GPU of ``x``."""
        with self._lock:
            if not x.is_cuda:
                yield
                return
            stream = torch.cuda.current_stream(x.device)
            if self._done is not None:
                stream.wait_event(self._done)
            try:
                yield
            finally:
                self._done = stream.record_event()


class Graphs:
    """Runs ``function``, recording small shapes that occur repeatedly.

    ``area`` is the number of pixels per position of the input; ``record`` records a run. The most recently
    used graphs are kept. They share memory, so one is replayed at a time.
    """

    def __init__(
        self, function: Function, area: int, record: Callable[..., Recorded] = Recorded
    ) -> None:
        self.function, self._area, self._record = function, area, record
        self._seen: Counter[torch.Size] = Counter()
        self._graphs: OrderedDict[torch.Size, Recorded] = OrderedDict()
        self._turns = Turns()

    def __call__(self, x: Tensor) -> Tensor:
        if not self.suits(x):
            return self._plainly(x)
        with self._turns.turn(x):
            graph = self._graph(x)
            return graph(x) if graph is not None else self._plainly(x)

    def suits(self, x: Tensor) -> bool:
        """Return whether a run on ``x`` is one of many short steps on a GPU."""
        return x.is_cuda and len(x) * x.shape[2] * x.shape[3] * self._area <= MOST_POSITIONS

    def _graph(self, x: Tensor) -> Recorded | None:
        """Return the recorded run at this shape; None if there is none yet."""
        shape = x.shape
        if shape in self._graphs:
            self._graphs.move_to_end(shape)
            return self._graphs[shape]
        self._seen[shape] += 1
        if self._seen[shape] != FIRST_RUNS + 1:
            return None
        pool = next(iter(self._graphs.values())).pool if self._graphs else None
        try:
            self._graphs[shape] = self._record(self.function, x, pool)
        except RuntimeError:  # no memory, or something that cannot be recorded: never again
            return None
        if len(self._graphs) > MOST_GRAPHS:
            dropped, _ = self._graphs.popitem(last=False)
            self._seen[dropped] = 0
        return self._graphs[shape]

    def _plainly(self, x: Tensor) -> Tensor:
        try:
            return self.function(x)
        except torch.OutOfMemoryError:
            if not self._graphs:
                raise
        with self._turns.turn(x):  # no graph is being replayed
            self._graphs.clear()
            self._seen.clear()
            torch.cuda.empty_cache()
        return self.function(x)
