"""Shuffled batches of latents of one shape, divided among the ranks of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from auravae_cli.store.reader import Concatenation, LatentStore

Numbers = NDArray[np.int64]


class HasStore(Protocol):
    """A dataset whose rows are those of ``store``."""

    store: LatentStore


class BucketBatchSampler:
    """Lists of rows whose latents have one shape: the ``batch_sampler`` of a `DataLoader`.

    Every row occurs once per epoch, on one of the ranks, and every rank gets the same number of batches.
    All batches hold ``batch_size`` rows, except the last of each shape, and a few (fewer than
    ``world_size``) that are halved to make the ranks even. Only if all batches have a single row already
    are a few rows repeated instead. With ``drop_last``, all batches are full; the remaining rows and up
    to ``world_size - 1`` batches are dropped, different ones in every epoch.

    The order depends only on (seed, epoch): call `set_epoch` before each epoch. Memory: 4 bytes per row
    of a store below 2**32 rows.

    Args:
        dataset: a `LatentDataset`, or anything with a ``store``.
        batch_size: rows per batch on one rank.
        shuffle: if false, batches come in the order of the store, shape by shape.
        seed: the same on every rank.
        rank, world_size: this process's rank, and the number of ranks.
    """

    def __init__(
        self,
        dataset: HasStore,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1 or seed < 0 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size {batch_size}, seed {seed}, rank {rank} of {world_size}: expected "
                "batch_size >= 1, seed >= 0 and 0 <= rank < world_size"
            )
        store = dataset.store
        self._buckets = [Concatenation(store, parts) for parts in store.parts_by_shape().values()]
        self.batch_size, self.drop_last = batch_size, drop_last
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self.rank, self.world_size = rank, world_size
        self._batches = self._plan()
        if len(self._batches) < world_size:
            raise ValueError(
                f"{store.root}: {len(store)} rows give {len(self._batches)} batches of {batch_size}, "
                f"fewer than the {world_size} ranks"
            )

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch; use the same number on every rank."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches) // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        orders = [self._order(random, bucket.length) for bucket in self._buckets]
        order: NDArray[Any] = np.arange(len(self._batches))
        if self.shuffle:
            order = random.permutation(order)
        for number in order[self.rank : len(self) * self.world_size : self.world_size]:
            bucket, start, stop = self._batches[number]
            rows = self._buckets[bucket].rows(orders[bucket][start:stop])
            yield rows.tolist()

    def _order(self, random: np.random.Generator, length: int) -> NDArray[Any]:
        numbers = np.arange(length, dtype=np.uint32 if length < 2**32 else np.uint64)
        if self.shuffle:
            random.shuffle(numbers)
        return numbers

    def _plan(self) -> Numbers:
        """Return the bucket, the first position and the end of every batch, [T, 3]."""
        batches: Numbers = np.concatenate(
            [self._cut(number, bucket.length) for number, bucket in enumerate(self._buckets)]
        )
        while not self.drop_last and (short := -len(batches) % self.world_size):
            sizes = batches[:, 2] - batches[:, 1]
            largest = np.argsort(-sizes, kind="stable")[:short]
            largest = largest[sizes[largest] > 1]
            if not len(largest):
                return np.concatenate([batches, np.resize(batches, (short, 3))])
            halves = batches[largest]
            middle = (halves[:, 1] + halves[:, 2]) // 2
            batches[largest, 2], halves[:, 1] = middle, middle
            batches = np.concatenate([batches, halves])
        return batches

    def _cut(self, number: int, length: int) -> Numbers:
        starts = np.arange(0, length, self.batch_size, dtype=np.int64)
        stops = np.minimum(starts + self.batch_size, length)
        batches = np.stack([np.full_like(starts, number), starts, stops], axis=1)
        return batches[stops - starts == self.batch_size] if self.drop_last else batches
