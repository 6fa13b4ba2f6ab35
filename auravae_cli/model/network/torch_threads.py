"""torch's own threads while strips are computed: one for each strip (see `cpu.strip_threads`).

torch's threads share one operation at a time, and NNPACK uses a single one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from auravae_cli.model.cpu import strip_threads

_here = threading.local()


class _Runs:
    """The number of runs in progress in this process, and torch's number of threads before them.

    torch's number of threads applies to one thread, and also to all that start later, and MKL's to all
    threads. So the first run takes it, and the last one restores it.
    """

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Reset to no runs, as in a forked child, where those of other threads never end."""
        self.lock, self.number, self.threads = threading.Lock(), 0, 1


_runs = _Runs()


@contextmanager
def crew() -> Iterator[None]:
    """Share work by strips, not by operations, within the block.

    The caller's own operations run in one thread, too: torch's threads would keep spinning for a while
    after each of them, and slow down the strips.
    """
    with _runs.lock:
        _here.threads = _runs.threads = torch_threads()
        _runs.number += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _runs.lock:
            _runs.number -= 1
            del _here.threads
            _here.owed = _runs.threads if _runs.number else 1
            if not _runs.number:
                torch.set_num_threads(_runs.threads)


def torch_threads() -> int:
    """Return torch's number of threads, as it was before any run in progress."""
    if _runs.number:
        return _runs.threads
    # A run that ended here while others continued could not restore this thread's number.
    found = torch.get_num_threads()
    return found if found > 1 else int(getattr(_here, "owed", 1))


def num_threads(device: torch.device) -> int:
    """Return how many tasks to run at once: within `crew`, on a CPU, torch's number of threads."""
    return getattr(_here, "threads", 1) if device.type == "cpu" else 1


def run_all(tasks: Iterable[Callable[[], None]], threads: int) -> None:
    """Run all tasks within `crew`, up to ``threads`` at a time, each in inference mode and one thread."""
    strip_threads.run_all([partial(_alone, task) for task in tasks], threads)


def _alone(task: Callable[[], None]) -> None:
    if torch.get_num_threads() > 1:  # in a thread of its own; asked first, or it would be set again
        torch.set_num_threads(1)
    with torch.inference_mode():  # the mode applies to one thread only
        task()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_runs.start_anew)
