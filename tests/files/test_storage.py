"""Folders of whole files, here and remote: one behaviour, and errors that say where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from auravae_cli.errors import AuraVaeError, OutputError, StoreError
from auravae_cli.files import storage as module
from auravae_cli.files.places import is_remote
from auravae_cli.files.storage import LocalStorage, RemoteStorage, open_storage

pytestmark = pytest.mark.filterwarnings("error")
unless_root = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything"
)


@pytest.fixture(params=["local", "memory", "file"])
def storage(request, tmp_path):
    """An empty storage of each kind."""
    location = {
        "local": str(tmp_path / "root"),
        "memory": f"memory://{tmp_path.name}/root",
        "file": f"file://{tmp_path}/root",
    }[request.param]
    yield open_storage(location)
    if request.param == "memory":
        import fsspec

        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def put(tmp_path, storage):
    """Publish a file: ``put("a/b.txt", b"content")``."""

    def write(name, content=b"x"):
        (tmp_path / "finished").write_bytes(content)
        storage.publish(tmp_path / "finished", name)
        assert not (tmp_path / "finished").exists()

    return write


def test_the_kinds():
    assert isinstance(open_storage("a/b"), LocalStorage)
    assert isinstance(open_storage("file:///a/b"), LocalStorage)
    assert isinstance(open_storage("memory://a/b"), RemoteStorage)
    assert [is_remote(n) for n in ("a", "/a:b", "file:///a", "s3://b/k")] == [False] * 3 + [True]
    with pytest.raises(StoreError, match="no way to reach nothing://"):
        open_storage("nothing://a")


def test_there_is_nothing_yet(storage):
    assert list(storage.entries()) == []
    for read in (storage.read, storage.map, storage.open):
        with pytest.raises(FileNotFoundError):
            read("a")
    storage.remove("a")
    storage.remove("a/b")


def test_what_is_published_can_be_read_in_every_way(storage, put):
    content = bytes(range(256)) * 100
    put("sub/deep/a.bin", content)
    put("b.bin", b"")
    assert storage.read("sub/deep/a.bin") == content
    assert bytes(storage.map("sub/deep/a.bin")) == content
    assert bytes(storage.map("b.bin")) == b""
    with storage.open("sub/deep/a.bin") as file:
        assert file.read(1000) + file.read() == content
    assert [(e.name, e.size) for e in storage.entries()] == [
        ("b.bin", 0),
        ("sub/deep/a.bin", len(content)),
    ]


def test_entries_are_sorted_by_name_and_none_is_hidden(storage, put):
    for name in ("b/2", "b/10", "b.c", "a", ".hidden", "b/.hidden/x", "b!"):
        put(name)
    assert [entry.name for entry in storage.entries()] == ["a", "b!", "b.c", "b/10", "b/2"]


def test_a_version_changes_with_the_file(storage, put):
    put("a", b"1")
    (before,) = storage.entries()
    put("a", b"2")
    (after,) = storage.entries()
    assert (before.name, before.size) == (after.name, after.size)
    assert before.version != after.version


def test_replaced_and_removed(storage, put):
    put("a", b"old")
    kept = storage.map("a")
    put("a", b"new!")
    assert storage.read("a") == b"new!"
    assert bytes(kept) == b"old"  # a map outlives its file
    storage.remove("a")
    assert list(storage.entries()) == []


def test_a_publish_that_fails_leaves_what_was_there(tmp_path):
    storage = LocalStorage(tmp_path)
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OutputError, match="cannot write"):
        storage.publish(tmp_path / "nothing", "a")
    assert storage.read("a") == b"old"


def test_links_are_followed_but_not_in_circles(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    (folder / "sub").mkdir(parents=True)
    other.mkdir()
    (folder / "sub" / "a").write_bytes(b"1")
    (other / "b").write_bytes(b"2")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "self").symlink_to(".")
    (folder / "broken").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "other").symlink_to(other)
    found = [entry.name for entry in LocalStorage(folder).entries()]
    assert found == ["other/b", "sub/a"]


@unless_root
def test_what_may_not_be_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(StoreError, match="cannot be listed"):
        list(LocalStorage(tmp_path).entries())


def test_errors_name_the_place(tmp_path):
    (tmp_path / "folder").mkdir()
    storage = LocalStorage(tmp_path)
    with pytest.raises(StoreError, match="folder"):
        storage.read("folder")
    with pytest.raises(StoreError, match="folder"):
        storage.remove("folder")


class Unreliable:
    """A remote file system whose requests fail as often as it is told to."""

    def __init__(self, failures, error):
        self.left, self.error, self.asked = failures, error, 0

    def cat_file(self, path, **_):
        self.asked += 1
        if self.left:
            self.left -= 1
            raise self.error
        return b"content"

    def find(self, path, detail):
        return self.cat_file(path)

    def put_file(self, path, target):
        self.cat_file(target)

    rm_file = cat_file

    def invalidate_cache(self):
        pass


@pytest.fixture
def unreliable(monkeypatch):
    """A remote storage with requests that fail, and the pauses that it made."""
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)

    def make(failures, error):
        storage = RemoteStorage("memory://bucket")
        storage._files = Unreliable(failures, error)
        return storage, pauses

    return make


def test_requests_are_repeated_after_growing_pauses(unreliable):
    storage, pauses = unreliable(9, OSError("503 slow down"))
    assert storage.read("a") == b"content"
    assert storage._files.asked == 10 == len(pauses) + 1
    for number, pause in enumerate(pauses):
        longest = min(module.LONGEST_PAUSE, module.FIRST_PAUSE * 2**number)
        assert longest / 2 <= pause <= longest


def test_in_the_end_the_last_reason_is_told(unreliable):
    storage, pauses = unreliable(99, OSError("503 slow down\nmore"))
    with pytest.raises(
        StoreError, match=r"memory://bucket/a: gave up after 10 attempts: 503 slow down$"
    ):
        storage.read("a")
    assert len(pauses) == 9


NoCredentialsError = type("NoCredentialsError", (Exception,), {})  # as botocore calls it


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("forbidden"),
        FileNotFoundError("no bucket"),
        NoCredentialsError("forbidden: no credentials"),
    ],
)
def test_some_errors_are_not_worth_repeating(unreliable, tmp_path, error):
    storage, pauses = unreliable(99, error)
    (tmp_path / "a").write_bytes(b"x")
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else StoreError
    with pytest.raises(kind):
        storage.read("a")
    with pytest.raises(AuraVaeError, match=r"bucket/a: .*(forbidden|no bucket)"):
        storage.publish(tmp_path / "a", "a")
    assert pauses == []


def test_a_bucket_that_is_not_there_holds_nothing(unreliable):
    storage, _ = unreliable(99, FileNotFoundError("no bucket"))
    assert list(storage.entries()) == []
    storage.remove("a")


def test_folder_marks_are_no_files(unreliable):
    storage, _ = unreliable(0, None)
    found = {
        f"{storage._prefix}/": {"size": 0},
        f"{storage._prefix}/train/": {"size": 0},
        f"{storage._prefix}/train/a.jpg": {"size": 3, "ETag": '"e1"'},
        f"{storage._prefix}/b.jpg": {"size": None},
    }
    storage._files.find = lambda path, detail: found
    entries = [(entry.name, entry.size, entry.version) for entry in storage.entries()]
    assert entries == [("b.jpg", 0, ""), ("train/a.jpg", 3, "e1")]


def test_a_remote_file_is_read_in_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(module._RepeatedReads, "BLOCK", 1000)
    storage = open_storage("memory://blocks")
    content = os.urandom(5500)
    (tmp_path / "a").write_bytes(content)
    storage.publish(tmp_path / "a", "a")
    with storage.open("a") as file:
        parts = [file.read(size) for size in (1, 999, 1001, 3000)]
        assert b"".join(parts) + file.read() == content
        assert file.read(10) == b""
    assert bytes(storage.map("a")) == content


def test_a_remote_file_that_shrinks_is_no_whole_file(tmp_path):
    storage = open_storage("memory://shrinks")
    (tmp_path / "a").write_bytes(b"x" * 100)
    storage.publish(tmp_path / "a", "a")
    with storage.open("a") as file:
        storage.read_range = lambda *_: b""
        with pytest.raises(StoreError, match="ends before its own size"):
            file.read()


def test_names_that_are_no_text(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    path.write_bytes(b"x")
    (entry,) = LocalStorage(tmp_path).entries()
    assert LocalStorage(tmp_path).read(entry.name) == b"x"
