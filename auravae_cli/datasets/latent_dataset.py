"""Stores of latents as torch datasets: with random access, or as a stream.

dataset = LatentDataset("STORE", fields=("label",), flip="random")
sampler = BucketBatchSampler(dataset, 256, rank=rank, world_size=world_size)
loader = DataLoader(dataset, batch_sampler=sampler, num_workers=8)
for epoch in range(epochs):
    dataset.set_epoch(epoch), sampler.set_epoch(epoch)
    for batch in loader:  # {"latent": [256, C, h, w], "label": [256]}
        ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from auravae_cli.datasets.hashed_random import draw
from auravae_cli.latents.dtypes import BFLOAT16
from auravae_cli.store.fields import FieldReader
from auravae_cli.store.reader import Concatenation, LatentStore
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.geometry import Padding
from auravae_cli.symmetry.group import E, GroupElement, H

Sample = dict[str, Any]
Flip = GroupElement | str | None  # an element, its name, or "random"


class _Samples:
    """The common part of both datasets: maps the number of a row to its sample, flipped as requested."""

    def __init__(
        self,
        store: str | Path | LatentStore,
        fields: Sequence[str],
        missing: Mapping[str, Any] | None,
        flip: Flip,
        flips: Sequence[GroupElement | str],
        seed: int,
        dtype: torch.dtype | str | None,
    ) -> None:
        if isinstance(flip, str) and flip != "random":
            flip = GroupElement.of(flip)
        if isinstance(fields, str) or not flips or seed < 0:
            raise ValueError(
                f"fields {fields!r}, flips {flips!r}, seed {seed}: expected a sequence of names, at "
                "least one element, and a seed >= 0"
            )
        self.store = store if isinstance(store, LatentStore) else LatentStore(store)
        self.flip, self.flips, self.seed = flip, tuple(map(GroupElement.of, flips)), seed
        self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self._tells_flip = "flip" in fields
        self._facts = FieldReader(self.store, [f for f in fields if f != "flip"], missing or {})
        # Shared memory, so that workers that outlive an epoch (persistent_workers) see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __repr__(self) -> str:
        flipped = f", flip={str(self.flip)!r}" if self.flip is not None else ""
        return f"<{type(self).__name__} of {len(self.store)} latents in {self.store.root}{flipped}>"

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw new flips; call it before each epoch, with the same number on every rank."""
        self._epoch.fill_(epoch)

    def flip_of(self, index: int) -> GroupElement:
        """Return the element that is applied to row ``index`` in this epoch."""
        if isinstance(self.flip, GroupElement):
            return self.flip
        if self.flip is None:
            return E
        return self.flips[draw(len(self.flips), self.seed, self.epoch, index)]

    def _sample(self, index: int) -> Sample:
        number, row = self.store.locate(index)
        g = self.flip_of(index)
        sample: Sample = {"latent": self._latent(self.store.values(number)[row], g)}
        if self._facts.fields:
            for name, value in self._facts.of(number, row).items():
                sample[name] = _collatable(value, g)
        if self._tells_flip:
            sample["flip"] = str(g)
        return sample

    def _latent(self, stored: Any, g: GroupElement) -> torch.Tensor:
        words = act(g, stored, self.store.settings.space.irreps)  # always a copy
        if self.store.settings.stored_dtype == BFLOAT16:
            latent = torch.from_numpy(words.view(np.int16)).view(torch.bfloat16)
        else:
            latent = torch.from_numpy(words)
        return latent if self.dtype is None else latent.to(self.dtype)


class LatentDataset(_Samples, Dataset[Sample]):
    """The latents of a store by number, each a dict for torch's ``default_collate``.

    ``dataset[i]["latent"]`` is [C, h, w]. The other entries are the requested ``fields``:

    - ``key``, ``caption``, ``source``, ``source_sha256``: str; ``label``: int
    - ``image_size``, ``source_size``: int64 [2], (height, width) in pixels
    - ``padding``: int64 [4], pixels at (left, right, top, bottom); sides follow the flip
    - ``source_box``: float32 [4], (left, top, right, bottom), the part of the upright source that the
      picture shows; a flip does not change it
    - ``orientation``: str, the element by which the latent differs from its source, including the flip
    - ``flip``: str, the element that was applied
    - ``metadata``: any JSON of the dataset; needs your own ``collate_fn``, unless all agree

    Fields require reading the header of each file of latents that is used. Only a few million values are
    kept in memory, so use `IterableLatentDataset` for fields of larger stores. For latents of several
    shapes, use `BucketBatchSampler`. Workers can be forked or spawned.

    Args:
        store: the folder, or an open `LatentStore`.
        fields: names of the fields to return beside the latent.
        missing: the values of fields that a record lacks, for example ``{"caption": ""}``.
        flip: None, one element for all, or ``"random"``: drawn from ``flips`` as a function of
            (``seed``, epoch, row), independent of workers, ranks and order. Exact in every format.
        dtype: of the latents; None: as stored.

    Raises:
        StoreError: there is no store, it is empty or remote, or its files contradict the manifests;
            from ``dataset[i]``, also if a record lacks a field.
        ValueError: an unknown field or flip.
    """

    def __init__(
        self,
        store: str | Path | LatentStore,
        *,
        fields: Sequence[str] = (),
        missing: Mapping[str, Any] | None = None,
        flip: Flip = None,
        flips: Sequence[GroupElement | str] = (E, H),
        seed: int = 0,
        dtype: torch.dtype | None = torch.float32,
    ) -> None:
        super().__init__(store, fields, missing, flip, flips, seed, dtype)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Sample:
        return self._sample(index + len(self) if index < 0 else index)


class IterableLatentDataset(_Samples, IterableDataset[Sample]):
    """The latents of a store as a stream, a few files at a time: for stores larger than the memory.

    The files come in a shuffled order, one after the other. Every worker of every rank takes a contiguous
    part of that order, and shuffles each ``buffer_size`` rows of it among themselves. So every row occurs
    once per epoch, on one worker. The sizes of the parts differ by at most one row. With ``even=True``
    they are equal, and the last rows of the order, fewer than workers times ranks, are dropped, different
    ones in every epoch. Use that for distributed training, where ranks must not run out of batches at
    different times.

    A batching `DataLoader` needs latents of one shape. For several shapes, give ``batch_size`` here and
    ``DataLoader(..., batch_size=None)``: the batches are collated and have one shape each; the smaller
    remaining ones come at the end of each worker's part.

    Samples, the other arguments and the flip of every row are as in `LatentDataset`. The order depends
    only on (``seed``, epoch, ranks, workers).
    """

    def __init__(
        self,
        store: str | Path | LatentStore,
        *,
        fields: Sequence[str] = (),
        missing: Mapping[str, Any] | None = None,
        flip: Flip = None,
        flips: Sequence[GroupElement | str] = (E, H),
        seed: int = 0,
        dtype: torch.dtype | None = torch.float32,
        shuffle: bool = True,
        buffer_size: int = 1 << 15,
        batch_size: int | None = None,
        even: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(store, fields, missing, flip, flips, seed, dtype)
        if (
            not 0 <= rank < world_size
            or buffer_size < 1
            or (batch_size is not None and batch_size < 1)
        ):
            raise ValueError(
                f"rank {rank} of {world_size}, buffer_size {buffer_size}, batch_size {batch_size}: "
                "expected 0 <= rank < world_size and positive sizes"
            )
        self.shuffle, self.buffer_size, self.batch_size = shuffle, buffer_size, batch_size
        self.even, self.rank, self.world_size = even, rank, world_size

    def __iter__(self) -> Iterator[Sample]:
        if self.batch_size is None:
            yield from map(self._sample, self._rows())
            return
        waiting: dict[tuple[int, ...], list[Sample]] = {}
        for sample in map(self._sample, self._rows()):
            shape = tuple(sample["latent"].shape)
            batch = waiting.setdefault(shape, [])
            batch.append(sample)
            if len(batch) == self.batch_size:
                yield default_collate(waiting.pop(shape))
        yield from map(default_collate, waiting.values())

    def _rows(self) -> Iterator[int]:
        """Yield the rows of this worker, in its order."""
        worker = get_worker_info()
        workers, own = (worker.num_workers, worker.id) if worker else (1, 0)
        readers, reader = self.world_size * workers, self.rank * workers + own
        start, stop = (len(self.store) * number // readers for number in (reader, reader + 1))
        if self.even:
            each = len(self.store) // readers
            start, stop = each * reader, each * (reader + 1)
        order = np.arange(len(self.store.parts))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        files = Concatenation(self.store, order)
        random = np.random.default_rng([self.seed, self.epoch, reader])
        for begin in range(start, stop, self.buffer_size):
            rows = files.rows(np.arange(begin, min(begin + self.buffer_size, stop)))
            yield from (random.permutation(rows) if self.shuffle else rows).tolist()


def _collatable(value: Any, g: GroupElement) -> Any:
    """Return a field after ``g``, in a form that torch's ``default_collate`` accepts."""
    if isinstance(value, Padding):
        return torch.tensor(value.act(g).as_tuple())
    if isinstance(value, GroupElement):
        return str(g @ value)
    if isinstance(value, tuple):
        return torch.tensor(value)
    return value
