"""Threads that each compute a strip of rows through a whole layer.

torch's own threads share one operation at a time, and NNPACK uses a single one. A strip that stays
with one thread also stays in its cache from one operation to the next.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache

import torch

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
    """Run all tasks in inference mode, up to ``threads`` at a time. Raises the error of any of them.

    The caller is one of the threads: waking another one takes as long as a small strip.
    """
    waiting = deque(tasks)

    def work() -> None:
        while waiting:
            try:
                task = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                task()
            except BaseException:
                waiting.clear()
                raise

    number = min(threads, len(waiting)) - 1
    helpers = [_pool(threads - 1).submit(_infer, work) for _ in range(number)]
    try:
        work()
    finally:
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()


def _infer(task: Callable[[], None]) -> None:
    with torch.inference_mode():  # the mode applies to one thread only
        task()


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """Return the threads; each runs torch's operations in a single thread."""
    callers = torch.get_num_threads()
    all_ready = threading.Barrier(size)

    def join() -> None:
        torch.get_num_threads()  # otherwise the first operation here would set the number again
        torch.set_num_threads(1)  # applies to this thread, and to those that use torch from now on
        all_ready.wait()

    pool = ThreadPoolExecutor(size, "auravae-strip", initializer=join)
    for future in [pool.submit(all_ready.wait) for _ in range(size)]:
        future.result()
    torch.set_num_threads(callers)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
    os.register_at_fork(after_in_child=_runs.start_anew)
