"""Batches of equal key: all items once, and no more of them waiting than number and memory allow."""

from __future__ import annotations

from hypothesis import given, strategies as st

from auravae_cli.operations.batches import PENDING_BATCHES, group_equal

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
