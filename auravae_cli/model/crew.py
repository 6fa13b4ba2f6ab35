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


@contextmanager
def crew() -> Iterator[None]:
    """Within it work is shared by strips, not by operations.

    The caller's own operations run alone, too: torch's threads would go on spinning for a while
    after each of them, and hold up the strips.
    """
    given = torch.get_num_threads()
    _here.threads = given
    torch.set_num_threads(1)
    try:
        yield
    finally:
        del _here.threads
        torch.set_num_threads(given)


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
