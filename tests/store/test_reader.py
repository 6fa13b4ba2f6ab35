"""LatentStore: rows found by number in memory maps, and errors that say what to do."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from auravae_cli.errors import StoreError
from auravae_cli.files.lru import LruCache
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.store import reader
from auravae_cli.store.fields import FieldReader
from auravae_cli.store.reader import Concatenation, LatentStore


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT32])
def test_every_row_is_the_one_that_was_stored(make_store, dtype):
    folder = make_store(dtype=dtype)
    store = LatentStore(folder)
    assert len(store) == 15
    facts, index = FieldReader(store, ["key"], {}), 0
    for part in store.parts:
        content = read_latents(folder / part.name)
        for values, record in zip(content.values, content.records, strict=True):
            number, row = store.locate(index)
            assert store.values(number)[row].tobytes() == values.tobytes()
            assert facts.of(number, row) == {"key": record.key}
            index += 1
    assert index == len(store)
    for outside in (-1, 15):
        with pytest.raises(IndexError):
            store.locate(outside)


def test_opening_reads_no_file_of_latents(make_store, monkeypatch):
    folder = make_store()
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(b"x" * path.stat().st_size)
    assert len(LatentStore(folder)) == 15


def test_a_pickled_store_takes_no_maps_along(make_store):
    store = LatentStore(make_store(shards={"a": {(64, 64): 20}}))
    before = store.values(0)
    content = pickle.dumps(store)
    assert len(content) < 10_000
    assert np.array_equal(pickle.loads(content).values(0), before)


def test_positions_in_some_parts_are_rows_of_the_store(make_store):
    store = LatentStore(make_store())
    by_shape = store.parts_by_shape()
    assert {shape[1:] for shape in by_shape} == {(2, 3), (3, 2), (2, 2)}
    for shape, numbers in by_shape.items():
        files = Concatenation(store, numbers[::-1])
        rows = files.rows(np.arange(files.length)).tolist()
        expected = [
            store.parts[n].first + row
            for n in numbers[::-1]
            for row in range(store.parts[n].shape[0])
        ]
        assert rows == expected
        assert all(store.parts[store.locate(row)[0]].shape[1:] == shape for row in rows)


def test_only_the_latest_are_kept():
    made = []

    def make(number):
        made.append(number)
        return [0] * number

    recent = LruCache(make, 10, len)
    for number in (4, 5, 4, 6, 4, 5):
        assert len(recent(number)) == number
    assert made == [4, 5, 6, 5]
    recent(30), recent(30)  # larger than all that may be kept, and kept still
    assert made[4:] == [30]


def test_two_threads_that_make_the_same_value_keep_it_once():
    """Counted twice, it would leave room for fewer, and in the end for none at all."""
    both, made = threading.Barrier(2, timeout=30), []

    def make(number):
        made.append(number)
        if number == 1:
            both.wait()
        return object()

    recent = LruCache(make, 2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(recent, [1, 1])
    assert first is second
    recent(2), recent(1)
    assert made == [1, 1, 2]


def test_many_threads_and_few_that_stay():
    recent, given = LruCache(str, 2), sys.getswitchinterval()

    def ask(seed):
        numbers = np.random.default_rng(seed).integers(5, size=1000).tolist()
        return all(recent(number) == str(number) for number in numbers)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(8)))
    finally:
        sys.setswitchinterval(given)
    assert len(recent._kept) == recent._total == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_does_not_wait_for_a_thread_it_has_not():
    code = """
import os
from auravae_cli.files.lru import LruCache
recent = LruCache(str, 2)
with recent._lock():  # as another thread may hold it
    child = os.fork()
    if not child:
        os._exit(recent(3) != "3")
os._exit(os.waitpid(child, 0)[1] != 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize(("files", "maps"), [(256, 64), (1024, 256), (1 << 20, 256), (2, 1)])
def test_maps_leave_the_process_files_to_open(monkeypatch, files, maps):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert reader._open_maps() == maps
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert reader._open_maps() == 256


def test_facts_that_a_record_lacks(make_store):
    folder = make_store()
    store = LatentStore(folder)
    number, row = store.locate(8)
    with pytest.raises(StoreError, match=rf"{store.parts[number].name}, row {row}: .* no caption"):
        FieldReader(store, ["key", "caption"], {}).of(number, row)
    assert FieldReader(store, ["caption"], {"caption": ""}).of(number, row) == {"caption": ""}
    assert FieldReader(store, ["label"], {"label": -1}).of(0, 0) == {"label": 0}  # 0 says something
    for fields, missing in ((["size"], {}), ([], {"size": 0})):
        with pytest.raises(
            ValueError, match=r"unknown field 'size': expected some of .*key, .*caption"
        ):
            FieldReader(store, fields, missing)


def test_what_is_no_store(make_store, tmp_path):
    with pytest.raises(StoreError, match=r"^s3://bucket/x: .* `aws s3 sync s3://bucket/x STORE`"):
        LatentStore("s3://bucket/x")
    with pytest.raises(StoreError, match="nowhere: cannot be read: No such file"):
        LatentStore(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="an empty store"):
        LatentStore(make_store("empty", shards={}))
    with pytest.raises(StoreError, match="an empty store"):
        LatentStore(make_store("failed", shards={"b": {}}))


def test_a_shard_without_manifest_does_not_exist(make_store):
    folder = make_store()
    (folder / "a.manifest.json").unlink()
    assert len(LatentStore(folder)) == 8


def test_files_that_are_not_what_the_manifest_says(make_store, edit_manifest):
    folder = make_store()
    victim = folder / "a.2x3.safetensors"
    content = victim.read_bytes()
    store = LatentStore(folder)
    victim.write_bytes(content[:-2])
    expected = rf"a.2x3.safetensors: {len(content) - 2} bytes, but its manifest says {len(content)}"
    with pytest.raises(StoreError, match=expected):
        LatentStore(folder)
    with pytest.raises(StoreError, match=expected):
        store.values(0)  # opened before, mapped after
    victim.unlink()
    with pytest.raises(StoreError, match=r"a.2x3.safetensors: missing"):
        LatentStore(folder)
    with pytest.raises(StoreError, match=r"a.2x3.safetensors: missing"):
        store.values(0)
    victim.write_bytes(content)
    edit_manifest(folder, "a", settings_sha256="0" * 64)
    with pytest.raises(StoreError, match="shard 'a' was made with other settings"):
        LatentStore(folder)


def test_a_damaged_header_is_told_when_it_is_read(make_store):
    folder = make_store()
    victim = folder / "a.2x3.safetensors"
    victim.write_bytes(b"x" * victim.stat().st_size)
    with pytest.raises(StoreError, match=r"a.2x3.safetensors: not a safetensors file"):
        FieldReader(LatentStore(folder), ["key"], {}).of(0, 0)
