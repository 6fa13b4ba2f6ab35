"""Stores on the hub: ``hf://datasets/USER/NAME/FOLDER``, through huggingface_hub's own file system."""

from __future__ import annotations

import sys

import fsspec
import numpy as np
import pytest

from auravae_cli import LatentDataset, export_latents, import_store, verify_store
from auravae_cli.errors import StoreError
from auravae_cli.files import storage
from auravae_cli.files.storage import open_storage
from tests.files.hub_datasets import HubOfDatasets


@pytest.fixture(scope="module")
def server():
    with HubOfDatasets("me/latents") as hub:
        yield hub


@pytest.fixture
def hub(server, monkeypatch):
    """An empty dataset on a hub of this machine."""
    server.files.clear()
    settings = {"endpoint": server.endpoint, "token": "hf_test"}
    monkeypatch.setitem(fsspec.config.conf, "hf", settings)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(storage, "FIRST_PAUSE", 0.01)
    return server


@pytest.fixture
def put(tmp_path):
    def publish(how, name, content):
        path = tmp_path / "finished"
        path.write_bytes(content)
        return how(path, name)

    return publish


def test_files_of_a_dataset(hub, put):
    place = open_storage("hf://datasets/me/latents/store")
    assert list(place.entries()) == []
    put(place.publish, "a/b.bin", b"one")
    assert put(place.create, "c.json", b"{}")
    assert not put(place.create, "c.json", b"another")
    hub.files["store/.hidden"] = hub.files["other"] = b"-"
    before = {entry.name: (entry.size, entry.version) for entry in place.entries()}
    assert {name: size for name, (size, _) in before.items()} == {"a/b.bin": 3, "c.json": 2}
    put(place.publish, "a/b.bin", b"two")
    after = {entry.name: (entry.size, entry.version) for entry in place.entries()}
    assert after["c.json"] == before["c.json"]
    assert after["a/b.bin"] != before["a/b.bin"]
    assert place.read("a/b.bin") == bytes(place.map("a/b.bin")) == b"two"
    place.remove("c.json")
    place.remove("c.json")
    with pytest.raises(FileNotFoundError):
        place.read("c.json")
    assert set(hub.files) == {"store/.hidden", "other", "store/a/b.bin"}


def test_a_store_goes_to_the_hub_and_comes_back(hub, tmp_path):
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for n in range(4):
        np.save(arrays / f"{n}.npy", np.full((16, 2, 2), n, np.float16))
    url = "hf://datasets/me/latents/store"
    given = {"assume_model": "linear", "shard_size": 4}
    made = import_store(arrays, url, "npy", **given)
    assert sum(outcome.rows for outcome in made.outcomes) == 4
    commits = hub.commits
    again = import_store(arrays, url, "npy", **given)
    assert {outcome.status for outcome in again.outcomes} == {"skipped"}
    assert hub.commits == commits
    report = verify_store(url)
    assert (report.rows, report.faults) == (4, 0)
    with pytest.raises(StoreError, match=r"`hf download .* me/latents --include 'store/\*' "):
        LatentDataset(url)
    export_latents(url, tmp_path / "back", "npy")
    for n in range(4):
        assert (np.load(tmp_path / "back" / f"{n}.npy") == n).all()


def test_requests_that_fail_are_repeated(hub):
    place = open_storage("hf://datasets/me/latents/store")
    hub.files["store/x"] = b"content"
    hub.failures = 1
    assert place.read("x") == b"content"


def test_what_another_machine_made_since_the_listing_is_found(hub, put):
    place = open_storage("hf://datasets/me/latents/store")
    hub.files["store/x"] = b"content"
    assert len(list(place.entries())) == 1
    hub.files["store/y"] = b"later"
    assert place.read("y") == b"later"
    assert len(list(place.entries())) == 2
    hub.files["store/z"] = b"theirs"
    assert not put(place.create, "z", b"mine")
    assert hub.files["store/z"] == b"theirs"


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "hf", raising=False)
    with pytest.raises(StoreError, match="pip install huggingface_hub"):
        open_storage("hf://datasets/me/latents")
