"""Work ahead: in order, within the budget at every moment, and no thread is left."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, strategies as st

from auravae_cli.machine import prefetch as prefetch_module
from auravae_cli.machine.prefetch import prefetch, read_ahead


class Watched:
    """What is under way: taken from the source, and not yet given to the reader."""

    def __init__(self, costs):
        self.costs, self.lock = costs, threading.Lock()
        self.spent = self.most = self.taken = 0

    def items(self):
        for number, _ in enumerate(self.costs):
            self.taken += 1
            yield number

    def cost(self, number):
        return self.costs[number]

    def work(self, number):
        with self.lock:
            self.spent += self.costs[number]
            self.most = max(self.most, self.spent)
        time.sleep(0.0002 * (number % 3))
        return number

    def give(self, number):
        with self.lock:
            self.spent -= self.costs[number]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@given(st.lists(st.integers(0, 12), max_size=20), st.integers(1, 4))
def test_results_in_order_within_the_budget(costs, workers):
    watched = Watched(costs)
    results = []
    for number in prefetch(
        watched.items(), watched.work, workers=workers, cost=watched.cost, budget=10
    ):
        results.append(number)
        watched.give(number)
    assert results == list(range(len(costs)))
    assert watched.most <= max([10, *costs])


def test_one_beyond_the_budget_is_worked_on_alone():
    running, most = [], []

    def work(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.002)
        running.remove(number)
        return number

    assert list(prefetch(range(6), work, workers=4, cost=lambda _: 11, budget=10)) == [*range(6)]
    assert max(most) == 1


def test_without_a_budget_the_number_alone_is_bounded():
    watched = Watched([1] * 100)
    results = prefetch(watched.items(), watched.work, workers=3)
    assert next(results) == 0
    assert watched.taken <= 4 * 3 + 1
    results.close()


def test_an_error_comes_in_the_place_of_its_result():
    def work(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = prefetch(range(9), work, workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(results) == []


def test_an_early_end_cancels_what_is_not_begun():
    begun = []
    results = prefetch(range(50), lambda n: (begun.append(n), time.sleep(0.005)), workers=1)
    next(results)
    results.close()
    assert len(begun) <= 4


@given(st.lists(st.integers(0, 12), max_size=20))
def test_read_ahead_keeps_order_and_budget(costs):
    waiting, most = [], []

    def items():
        for number, price in enumerate(costs):
            yield number
            waiting.append(price)  # the iterator is asked again once the item waits
            if len(waiting) > 1:
                most.append(sum(waiting))

    for expected, number in enumerate(read_ahead(items(), lambda n: costs[n], 10)):
        assert number == expected
        if costs[number] in waiting:
            waiting.remove(costs[number])
    assert not most or max(most) <= 10 + max(costs)  # the reader may have one that still counts


def test_read_ahead_waits_where_the_budget_is_full():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    reader = read_ahead(items(), lambda _: 6, 10)
    assert next(reader) == 0
    time.sleep(0.05)
    assert len(taken) <= 3  # one given, one waits, and one is at the door: two would cost 12
    reader.close()


def test_read_ahead_raises_the_error_where_it_came():
    def items():
        yield 1
        yield 2
        raise OSError("gone")

    reader = read_ahead(items(), lambda _: 1, 10)
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(reader)


def test_both_together_end_early():
    results = prefetch(
        read_ahead(iter(range(1000)), lambda _: 1, 5), lambda n: n, workers=2, budget=5
    )
    assert next(results) == 0
    results.close()
    del results


def test_a_read_that_does_not_come_holds_nobody_up(monkeypatch):
    """A signal that ends the program closes the iterator: that must not wait for ever."""
    monkeypatch.setattr(prefetch_module, "_PATIENCE", 0.05)
    comes = threading.Event()

    def items():
        yield 1
        comes.wait(60)

    reader = read_ahead(items(), lambda item: 1, 10)
    assert next(reader) == 1
    started = time.monotonic()
    reader.close()
    assert time.monotonic() - started < 10
    comes.set()
    for thread in threading.enumerate():
        if thread.name == "read-ahead":
            thread.join(10)
