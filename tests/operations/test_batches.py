"""Batches of equal key: all items once, and no more of them waiting than number and memory allow."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, strategies as st

from auravae_cli.errors import ComputeError, DeviceError, reason_of
from auravae_cli.operations.batches import PENDING_BATCHES, group_equal, try_batch

ITEMS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=60)


@given(ITEMS, st.integers(1, 5), st.sampled_from([0, 12]))
def test_what_waits_is_bounded(items: list[tuple[str, int]], batch_size: int, budget: int) -> None:
    taken: list[tuple[int, tuple[str, int]]] = []
    waiting = set()

    def source():
        for numbered in enumerate(items):
            assert len(waiting) < PENDING_BATCHES * batch_size
            assert not budget or sum(cost(item) for item in waiting) <= budget
            waiting.add(numbered)
            yield numbered

    def cost(item: tuple[int, tuple[str, int]]) -> int:
        return item[1][1]

    for batch in group_equal(source(), lambda item: (item[1][0], batch_size), cost, budget):
        assert len({key for _, (key, _) in batch}) == 1
        assert len(batch) <= batch_size
        waiting -= set(batch)
        taken += batch
    assert sorted(taken) == list(enumerate(items))


@pytest.mark.parametrize("error", [ComputeError("NaN came out"), MemoryError("2 GiB of numpy's")])
def test_a_batch_that_fails_costs_its_culprit_alone(error: Exception) -> None:
    runs = []

    def work(batch):
        runs.append(list(batch))
        if 3 in batch:
            raise error
        return [str(item) for item in batch]

    found = try_batch([1, 2, 3, 4], work, lambda item, why: f"{item}: {reason_of(why)}")
    reason = "not enough memory" if isinstance(error, MemoryError) else "NaN came out"
    assert found == ["1", "2", f"3: {reason}", "4"]
    assert runs == [[1, 2, 3, 4], [1], [2], [3], [4]]


def test_what_a_failed_batch_took_is_free_before_the_next_try() -> None:
    held: list[weakref.ref] = []

    def work(batch):
        gc.collect()
        assert all(taken() is None for taken in held)
        features = np.zeros(8)
        held.append(weakref.ref(features))
        if len(batch) > 1:
            raise ComputeError(f"{len(features)} are too many")
        return batch

    assert try_batch([1, 2], work, lambda item, error: item) == [1, 2]


def test_a_model_that_cannot_run_ends_everything() -> None:
    def work(batch):
        raise DeviceError("gone")

    with pytest.raises(DeviceError):
        try_batch([1, 2], work, lambda item, error: item)
