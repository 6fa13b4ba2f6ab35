"""Threads that each compute a strip of rows through a whole layer.

torch's own threads share one operation at a time, and NNPACK uses a single one. A strip that stays
with one thread also stays in its cache from one operation to the next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

_here = threading.local()


def num_threads(device: torch.device) -> int:
    """How many strips of rows to compute at once: as many as torch has threads, on a CPU."""
    on_cpu = device.type == "cpu" and not getattr(_here, "is_in_crew", False)
    return torch.get_num_threads() if on_cpu else 1


def run_all(tasks: Iterable[Callable[[], None]], threads: int) -> None:
    """Run all tasks, in inference mode, up to ``threads`` at a time. Raises what the first raises."""
    tasks = list(tasks)
    if threads == 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    futures = [_crew(threads).submit(_infer, task) for task in tasks]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


def _infer(task: Callable[[], None]) -> None:
    with torch.inference_mode():  # a mode holds for one thread alone
        task()


@cache
def _crew(size: int) -> ThreadPoolExecutor:
    """The threads; each runs torch's operations alone."""
    given = torch.get_num_threads()
    all_ready = threading.Barrier(size)

    def join() -> None:
        _here.is_in_crew = True
        torch.get_num_threads()  # or the first operation here would set the number once more
        torch.set_num_threads(1)  # holds for this thread, and for those that use torch from now on
        all_ready.wait()

    pool = ThreadPoolExecutor(size, "auravae-strip", initializer=join)
    for future in [pool.submit(all_ready.wait) for _ in range(size)]:
        future.result()
    torch.set_num_threads(given)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.cache_clear)  # threads do not survive a fork
