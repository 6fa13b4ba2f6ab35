"""Measure a piece of work: seconds, and the peak memory above what was held before."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

INTERVAL = 0.01  # seconds between samples: below a thousandth of a core
_STATM = Path("/proc/self/statm")


@dataclass
class Meter:
    """Measures a ``with`` block on a device.

    On CUDA, ``memory`` is what torch allocated, exactly. On Linux it is the process's own pages, sampled
    every 10 ms, including what other threads take meanwhile; elsewhere it is None.
    """

    device: str = "cpu"
    interval: float = INTERVAL
    seconds: float = 0.0
    memory: int | None = None

    def __enter__(self) -> Meter:
        self._on_cuda = self.device.startswith("cuda")
        if self._on_cuda:
            self._before = self._start_cuda()
        else:
            self._watch = _Watch(self.interval) if _STATM.exists() else None
        self._started = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._on_cuda:
            import torch

            torch.cuda.synchronize(self.device)
            self.seconds = time.perf_counter() - self._started
            self.memory = torch.cuda.max_memory_allocated(self.device) - self._before
            return
        self.seconds = time.perf_counter() - self._started
        if self._watch is not None:
            self.memory = self._watch.stop()

    def _start_cuda(self) -> int:
        import torch

        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return int(torch.cuda.memory_allocated(self.device))


class _Watch:
    """A thread that samples the process's own pages until it is stopped."""

    def __init__(self, interval: float) -> None:
        self._file = os.open(_STATM, os.O_RDONLY)
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._first = self._peak = self._own()
        self._interval, self._ended = interval, threading.Event()
        self._thread = threading.Thread(target=self._look, name="meter", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop, and return the peak in bytes above the beginning."""
        self._ended.set()
        self._thread.join()
        self._peak = max(self._peak, self._own())
        os.close(self._file)
        return self._peak - self._first

    def _look(self) -> None:
        while not self._ended.wait(self._interval):
            self._peak = max(self._peak, self._own())

    def _own(self) -> int:
        """Return resident pages that are not backed by a file, so that loaded libraries do not count."""
        numbers: Any = os.pread(self._file, 128, 0).split()
        return (int(numbers[1]) - int(numbers[2])) * self._page
