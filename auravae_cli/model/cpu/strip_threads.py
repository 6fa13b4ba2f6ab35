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
    """How many runs are under way in this process, and how many threads torch had before them.

    torch's number of threads is one for each thread, and also one for all that come later, and MKL's
    one for all: so the first run takes it, and the last gives it back.
    """

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """None are under way: as in a forked child, where those of other threads never end."""
        self.lock, self.number, self.threads = threading.Lock(), 0, 1


_runs = _Runs()


@contextmanager
def crew() -> Iterator[None]:
    """Within it work is shared by strips, not by operations.

    The caller's own operations run alone, too: torch's threads would go on spinning for a while
    after each of them, and hold up the strips.
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
    """How many threads torch has, as it was before any run that is under way."""
    if _runs.number:
        return _runs.threads
    # A run that ended here while others went on could not give this thread its number back.
    found = torch.get_num_threads()
    return found if found > 1 else int(getattr(_here, "owed", 1))


def num_threads(device: torch.device) -> int:
    """How many tasks to run at once: within `crew`, on a CPU, as many as torch has threads."""
    return getattr(_here, "threads", 1) if device.type == "cpu" else 1


def run_all(tasks: Iterable[Callable[[], None]], threads: int) -> None:
    """Run all tasks, in inference mode, up to ``threads`` at a time. Raises what one of them raises.

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
    with torch.inference_mode():  # a mode holds for one thread alone
        task()


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """The threads; each runs torch's operations alone."""
    callers = torch.get_num_threads()
    all_ready = threading.Barrier(size)

    def join() -> None:
        torch.get_num_threads()  # or the first operation here would set the number once more
        torch.set_num_threads(1)  # holds for this thread, and for those that use torch from now on
        all_ready.wait()

    pool = ThreadPoolExecutor(size, "auravae-strip", initializer=join)
    for future in [pool.submit(all_ready.wait) for _ in range(size)]:
        future.result()
    torch.set_num_threads(callers)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
    os.register_at_fork(after_in_child=_runs.start_anew)
