"""Of several runs that start in one empty store at once, one says what it holds."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace

import pytest

from auravae_cli.errors import StoreError
from auravae_cli.files.storage import RemoteStorage, open_storage
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.store import commit
from auravae_cli.store.commit import prepare_store
from auravae_cli.store.settings import StoreSettings, read_settings
from tests.conftest import SPACE

FIRST = StoreSettings(SPACE, FLOAT16, "float32", {"resize": 256})
SECOND = replace(FIRST, preparation={"resize": 512})


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path):
    """An empty store."""
    if request.param == "local":
        return open_storage(str(tmp_path / "store"))
    return open_storage(f"memory://{tmp_path.name}-{os.getpid()}/store")


def delay(monkeypatch, interlude):
    """Let something happen after a run has seen that the store is empty, and before it writes."""
    genuine = commit.write_small

    def write_small(*arguments):
        monkeypatch.setattr(commit, "write_small", genuine)
        interlude()
        return genuine(*arguments)

    monkeypatch.setattr(commit, "write_small", write_small)


def test_the_slower_of_two_with_other_settings_is_refused(storage, monkeypatch):
    delay(monkeypatch, lambda: prepare_store(storage, SECOND))
    with pytest.raises(StoreError, match="holds latents of other settings"):
        prepare_store(storage, FIRST)
    assert read_settings(storage) == SECOND


def test_two_with_the_same_settings_go_on(storage, monkeypatch):
    delay(monkeypatch, lambda: prepare_store(storage, FIRST))
    prepare_store(storage, FIRST)
    assert read_settings(storage) == FIRST


KNOWN = replace(FIRST, kernels="native (x86_64, 16 lanes)", symmetry="canonical")


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"kernels": "native (x86_64, 8 lanes)"}, "made with kernels native (x86_64, 16 lanes), asked for kernels native (x86_64, 8"),
        ({"symmetry": "none"}, "made with symmetry canonical, asked for symmetry none"),
        ({"preparation": {"buckets": {"side": 512, "step": 64}, "center_crop": [30, 40]}},
         "made with --resize 256, asked for --buckets 512:64, --center-crop 40x30"),
        ({"preparation": {}}, "made with --resize 256, asked for no --resize."),
    ],
)  # fmt: skip
def test_last_bits_are_never_mixed(storage, other, difference):
    prepare_store(storage, KNOWN)
    assert prepare_store(storage, KNOWN) == KNOWN
    with pytest.raises(StoreError, match=re.escape(difference)):
        prepare_store(storage, replace(KNOWN, **other))


def test_a_store_of_before_goes_on_not_knowing_its_kernels(storage):
    prepare_store(storage, FIRST)
    assert prepare_store(storage, KNOWN) == FIRST == read_settings(storage)
    with pytest.raises(StoreError, match="other settings"):
        prepare_store(storage, replace(KNOWN, compute_dtype="bfloat16"))


def test_of_many_at_once_one_wins(storage):
    several = [replace(FIRST, preparation={"resize": 8 * number}) for number in range(1, 9)]
    barrier, winners = threading.Barrier(len(several)), []

    def run(settings):
        barrier.wait()
        try:
            prepare_store(storage, settings)
            winners.append(settings)
        except StoreError:
            pass

    threads = [threading.Thread(target=run, args=(settings,)) for settings in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [read_settings(storage)]


class Server:
    """A file system that refuses a condition as some servers do."""

    def __init__(self, number, content):
        self.number, self.content = number, content

    def pipe_file(self, path, value, mode="overwrite"):
        if mode == "create":
            raise OSError(self.number, "as s3fs tells it")
        self.content = value

    def exists(self, path):
        return self.content is not None

    def invalidate_cache(self, path=None):
        pass


@pytest.mark.parametrize(
    ("number", "before", "created"),
    [(38, None, True), (38, b"old", False), (22, b"old", False)],
    ids=["no conditions, empty", "no conditions, there", "there"],
)
def test_servers_that_have_no_conditional_writes(tmp_path, number, before, created):
    storage = RemoteStorage("memory://servers")
    storage._files = Server(number, before)
    (tmp_path / "new").write_bytes(b"new")
    assert storage.create(tmp_path / "new", "store.json") is created
    assert storage._files.content == (b"new" if created else before)
