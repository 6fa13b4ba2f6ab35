"""Threads that work ahead: results in order, within a memory budget."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_PATIENCE = 2.0  # seconds for the reading thread to notice that nobody wants more
DECODED_BYTES = 256 << 20  # of pictures decoded ahead of the model

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Return one thread per core, as far as that helps."""
    return min(8, os.cpu_count() or 1)


def prefetch(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    *,
    workers: int | None = None,
    cost: Callable[[Item], int] = lambda item: 0,
    budget: int = 0,
) -> Iterator[Result]:
    """Yield ``work(item)`` for all items, in order, computed by ``workers`` threads ahead of the reader.

    ``workers`` is `default_workers` where it is None. Items in progress or not yet consumed cost at
    most ``budget`` in total; an item that costs more by
    itself is worked on alone.
    """
    workers = workers or default_workers()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[int, Future[Result]]] = deque()
    spent = 0
    try:
        for item in items:
            price = cost(item)
            while waiting and (spent + price > budget > 0 or len(waiting) >= 4 * workers):
                spent -= waiting[0][0]
                yield waiting.popleft()[1].result()
            waiting.append((price, pool.submit(work, item)))
            spent += price
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_ahead(items: Iterable[Item], cost: Callable[[Item], int], budget: int) -> Iterator[Item]:
    """Yield the items of an iterator, which a thread advances while the reader works.

    At most ``budget`` of cost, or one item, is waiting. An error of the iterator is raised at its place.
    """
    waiting: deque[Item] = deque()
    changed = threading.Condition()
    spent, ended, stopped = 0, False, False
    error: BaseException | None = None

    def fill() -> None:
        nonlocal spent, ended, error
        try:
            for item in items:
                price = cost(item)
                with changed:
                    changed.wait_for(lambda: stopped or not waiting or spent + price <= budget)  # noqa: B023
                    if stopped:
                        return
                    waiting.append(item)
                    spent += price
                    changed.notify_all()
        except BaseException as reason:
            error = reason
        finally:
            with changed:
                ended = True
                changed.notify_all()

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended)
                if not waiting:
                    break
                item = waiting.popleft()
                spent -= cost(item)
                changed.notify_all()
            yield item
        if error is not None:
            raise error
    finally:
        with changed:
            stopped = True
            changed.notify_all()
        thread.join(_PATIENCE)  # a thread that waits for a stalled read ends with the process
