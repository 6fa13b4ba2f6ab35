"""Threads that each compute a strip of rows through a whole layer.

A strip that stays with one thread also stays in its cache from one operation to the next.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

from auravae_cli.machine import speeds


def threads() -> int:
    """Return how many strips to compute at once: torch's number of threads where a program has torch, since
    programs set it, else that of `machine.speeds`."""
    ask = getattr(sys.modules.get("torch"), "get_num_threads", speeds.threads)
    return int(ask())


def run_all(tasks: Iterable[Callable[[], None]], threads: int) -> None:
    """Run all tasks, up to ``threads`` at a time. Raises the error of any of them.

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
    helpers = [_pool(threads - 1).submit(work) for _ in range(number)]
    try:
        work()
    finally:
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, "auravae-strip")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
