"""Data sets: exact flips, the same for any workers, and every row once."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from auravae_cli import GROUP, HV, E, H, V, act
from auravae_cli.datasets.bucket_sampler import BucketBatchSampler
from auravae_cli.datasets.latent_dataset import IterableLatentDataset, LatentDataset
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.store.reader import LatentStore

DTYPES = {FLOAT16: torch.float16, BFLOAT16: torch.bfloat16, FLOAT32: torch.float32}
ONE_SHAPE = {"a": {(2, 3): 20}, "b": {(2, 3): 13}, "c": {(2, 3): 14}}
FIELDS = ("key", "image_size", "padding", "source_size", "source_box", "orientation", "flip")


def stored(folder):
    """All single latents of a store, in the order of its rows."""
    for part in LatentStore(folder).parts:
        content = read_latents(folder / part.name)
        yield from ((content, row) for row in range(part.shape[0]))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("g", [None, *GROUP], ids=str)
def test_latents_are_the_stored_ones_after_the_flip(make_store, dtype, g):
    folder = make_store(dtype=dtype)
    exact = LatentDataset(folder, flip=g, dtype=None, fields=FIELDS)
    floats = LatentDataset(folder, flip=g)
    g = g or E
    for index, (content, row) in enumerate(stored(folder)):
        words = act(g, content.values[row], content.space.irreps)
        sample, record = exact[index], content.records[row]
        assert sample["latent"].dtype == DTYPES[dtype]
        bits = torch.int32 if dtype == FLOAT32 else torch.int16
        assert sample["latent"].view(bits).numpy().tobytes() == words.tobytes()
        assert torch.equal(
            floats[index]["latent"], torch.from_numpy(content.dtype.to_float32(words))
        )
        padding = record.padding.act(g)
        assert sample["padding"].tolist() == list(padding.as_tuple())
        assert sample["image_size"].tolist() == list(record.image_size)
        assert sample["source_size"].tolist() == list(record.source_size)
        assert sample["source_box"].tolist() == list(record.source_box.as_tuple())
        assert (sample["flip"], sample["orientation"]) == (str(g), str(g @ record.orientation))
        assert sample["key"] == record.key
    assert index + 1 == len(exact)
    assert torch.equal(floats[-1]["latent"], floats[len(exact) - 1]["latent"])
    for outside in (len(exact), -len(exact) - 1):
        with pytest.raises(IndexError):
            exact[outside]


def test_by_default_samples_are_latents_alone(make_store):
    dataset = LatentDataset(make_store())
    assert dataset[0].keys() == {"latent"}
    assert dataset[0]["latent"].dtype == torch.float32
    dataset[0]["latent"].add_(1)  # the store's own bytes are out of reach
    assert torch.equal(dataset[0]["latent"], LatentDataset(dataset.store)[0]["latent"])


def test_random_flips_depend_on_seed_epoch_and_row_alone(make_store):
    folder = make_store(shards={"a": {(1, 1): 2000}})

    def flips(seed=0, epoch=0, among=(E, H)):
        dataset = LatentDataset(folder, flip="random", flips=among, seed=seed)
        dataset.set_epoch(epoch)
        return [dataset.flip_of(index) for index in range(len(dataset))]

    assert flips() == flips()
    for other in (flips(seed=1), flips(epoch=1)):
        same = sum(a == b for a, b in zip(flips(), other, strict=True))
        assert 900 < same < 1100
    assert flips(seed=0, epoch=1) != flips(seed=1, epoch=0)
    for among in ((E, H), (E, H, V), GROUP):
        counts = Counter(flips(among=among))
        assert counts.keys() == set(among)
        assert max(counts.values()) - min(counts.values()) < 120


def samples_of(batches):
    """Rows of batches by key: their flip and their latent's sum."""
    found = {}
    for batch in batches:
        rows = zip(batch["key"], batch["flip"], batch["latent"].sum((1, 2, 3)), strict=True)
        for key, flip, total in rows:
            assert key not in found
            found[key] = (flip, float(total))
    return found


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_what_one_process_gives(make_store, start):
    dataset = LatentDataset(
        make_store(dtype=BFLOAT16), flip="random", flips=GROUP, fields=("key", "flip")
    )
    dataset[0]  # a map is open already
    sampler = BucketBatchSampler(dataset, 3)
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=2,
        multiprocessing_context=start,
        persistent_workers=True,
    )
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch), sampler.set_epoch(epoch)
        found = samples_of(loader)
        assert found == samples_of(DataLoader(dataset, batch_sampler=sampler))
        assert len(found) == len(dataset)
        epochs.append(found)
    assert epochs[0] != epochs[1]


def test_a_pickled_data_set_goes_on(make_store):
    dataset = LatentDataset(make_store(), flip="random", fields=("key",))
    dataset.set_epoch(3)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.epoch == 3
    assert torch.equal(again[4]["latent"], dataset[4]["latent"])


def test_fields_that_are_missing(make_store):
    folder = make_store()
    assert LatentDataset(folder, fields=("label", "caption"))[3]["label"] == 3
    dataset = LatentDataset(folder, fields=("label",), missing={"label": -1})
    labels = [int(dataset[index]["label"]) for index in range(len(dataset))]
    assert labels == [0, 1, 2, 3, 4, 0, 1] + [-1] * 8


def test_wrong_arguments(make_store):
    folder = make_store()
    for wrong in (
        {"flip": "x"},
        {"flips": ("x",)},
        {"fields": "key"},
        {"flips": ()},
        {"fields": ("x",)},
    ):
        with pytest.raises(ValueError, match="expected"):
            LatentDataset(folder, **wrong)
    for wrong in ({"rank": 1}, {"buffer_size": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="expected 0 <= rank"):
            IterableLatentDataset(folder, **wrong)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_stream_gives_every_row_once(make_store, world_size, even):
    folder = make_store(shards=ONE_SHAPE)
    counts, keys = [], []
    for rank in range(world_size):
        dataset = IterableLatentDataset(
            folder, fields=("key",), rank=rank, world_size=world_size, even=even, buffer_size=7
        )
        dataset.set_epoch(1)
        own = [sample["key"] for sample in dataset]
        counts.append(len(own))
        keys += own
    assert len(keys) == len(set(keys)) == (47 // world_size * world_size if even else 47)
    assert max(counts) - min(counts) <= (not even)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_stream_through_workers(make_store, start):
    folder = make_store(shards=ONE_SHAPE)
    arguments = {"flip": "random", "fields": ("key", "flip")}
    dataset = IterableLatentDataset(folder, **arguments)
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=2,
        multiprocessing_context=start,
        persistent_workers=True,
    )
    orders = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        batches = list(loader)
        at_random = LatentDataset(folder, **arguments)
        at_random.set_epoch(epoch)
        assert samples_of(batches) == samples_of(DataLoader(at_random, batch_size=5))
        orders.append([key for batch in batches for key in batch["key"]])
    assert orders[0] != orders[1]


def test_streamed_batches_have_one_shape(make_store):
    dataset = IterableLatentDataset(make_store(), fields=("key", "flip"), batch_size=4)
    batches = list(DataLoader(dataset, batch_size=None))
    assert sorted(len(batch["key"]) for batch in batches) == [1, 3, 3, 4, 4]
    assert len(samples_of(batches)) == 15


def test_a_stream_in_order_and_shuffled(make_store):
    folder = make_store()
    plain = LatentDataset(folder, fields=("key",))
    expected = [plain[index]["key"] for index in range(len(plain))]
    stream = IterableLatentDataset(folder, fields=("key",), shuffle=False, buffer_size=2)
    assert [sample["key"] for sample in stream] == expected
    shuffled = IterableLatentDataset(folder, fields=("key",))
    orders = []
    for epoch in (0, 0, 1):
        shuffled.set_epoch(epoch)
        orders.append([sample["key"] for sample in shuffled])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(expected)
    assert orders[0] != expected


def test_an_element_for_all(make_store):
    dataset = LatentDataset(make_store(), flip=HV, fields=("flip",))
    assert {dataset[index]["flip"] for index in range(len(dataset))} == {"hv"}
