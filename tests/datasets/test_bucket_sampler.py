"""BucketBatchSampler: every row once an epoch, one shape a batch, as many batches on every rank."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from auravae_cli.datasets.bucket_sampler import BucketBatchSampler
from auravae_cli.store.reader import LatentStore, StorePart


def fake(parts):
    """A data set whose files are (rows, shape) pairs, without files."""
    store = LatentStore.__new__(LatentStore)
    firsts = np.cumsum([0, *(rows for rows, _ in parts)])
    store.root = "fake"
    store.parts = tuple(
        StorePart("", 0, (rows, *shape), 0, int(first))
        for (rows, shape), first in zip(parts, firsts[:-1], strict=True)
    )
    store.firsts = firsts[:-1].astype(np.int64)
    store._ends = firsts[1:].tolist()
    return SimpleNamespace(store=store)


def shape_of(dataset, row):
    return dataset.store.parts[dataset.store.locate(row)[0]].shape[1:]


PARTS = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from([(4, 2, 2), (4, 2, 3), (4, 3, 2)])), min_size=1
).filter(lambda parts: sum(rows for rows, _ in parts))


@given(PARTS, st.integers(1, 8), st.integers(1, 5), st.booleans(), st.integers(0, 3))
def test_every_row_once_one_shape_a_batch_equal_ranks(parts, size, world_size, shuffle, epoch):
    dataset = fake(parts)
    samplers = [
        BucketBatchSampler(dataset, size, shuffle=shuffle, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    ranks = [list(sampler) for sampler in samplers]
    assert {len(batches) for batches in ranks} == {len(samplers[0])}
    batches = [batch for rank in ranks for batch in rank]
    assert all(1 <= len(batch) <= size for batch in batches)
    assert all(len({shape_of(dataset, row) for row in batch}) == 1 for batch in batches)
    seen = sorted(row for batch in batches for row in batch)
    if all(len(batch) == 1 for batch in batches):
        assert sorted(set(seen)) == list(range(len(dataset.store)))
        assert len(seen) - len(set(seen)) < world_size
    else:
        assert seen == list(range(len(dataset.store)))


@given(PARTS, st.integers(1, 4), st.integers(1, 3))
def test_with_drop_last_all_batches_are_full(parts, size, world_size):
    dataset = fake(parts)
    buckets = {}
    for rows, shape in parts:
        buckets[shape] = buckets.get(shape, 0) + rows
    full = sum(rows // size for rows in buckets.values())
    try:
        samplers = [
            BucketBatchSampler(dataset, size, rank=r, world_size=world_size, drop_last=True)
            for r in range(world_size)
        ]
    except ValueError:
        assert full < world_size
        return
    batches = [batch for sampler in samplers for batch in sampler]
    assert len(batches) == full // world_size * world_size
    assert all(len(batch) == size for batch in batches)
    seen = [row for batch in batches for row in batch]
    assert len(seen) == len(set(seen))


def test_the_order_is_a_function_of_seed_and_epoch():
    dataset = fake([(40, (4, 2, 2)), (30, (4, 2, 3))])

    def order(seed, epoch):
        sampler = BucketBatchSampler(dataset, 4, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 0) != order(0, 0)
    sampler = BucketBatchSampler(dataset, 4)
    assert list(sampler) == list(sampler)


def test_without_shuffling_rows_come_in_order():
    dataset = fake([(3, (4, 2, 2)), (3, (4, 2, 3)), (2, (4, 2, 2))])
    batches = list(BucketBatchSampler(dataset, 4, shuffle=False))
    assert batches == [[0, 1, 2, 6], [7], [3, 4, 5]]


def test_numbers_that_mean_nothing():
    dataset = fake([(3, (4, 2, 2))])
    for wrong in ({"batch_size": 0}, {"seed": -1}, {"rank": 2, "world_size": 2}):
        with pytest.raises(ValueError, match="expected batch_size >= 1"):
            BucketBatchSampler(dataset, **({"batch_size": 2} | wrong))
    with pytest.raises(ValueError, match="3 rows give 1 batches of 2, fewer than the 2 ranks"):
        BucketBatchSampler(dataset, 2, world_size=2, drop_last=True)
