"""Watching folders: when a file is complete, and what becomes of it. Without a process or a model."""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from auravae_cli.errors import InputImageError
from auravae_cli.operations import watch as watch_module
from auravae_cli.operations.batches import done, failure
from auravae_cli.operations.inputs import collect
from auravae_cli.operations.outputs import Job
from auravae_cli.operations.watch import SETTLED, Watcher, watch


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def watcher(folder):
    return Watcher([str(folder)], frozenset([".png"]), frozenset([".decoded"]))


def write(path, content, age=0.0):
    """A file whose last change lies ``age`` seconds back."""
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def names(sources):
    return [source.path.name for source in sources]


def test_a_new_file_is_complete_at_the_second_look_that_finds_it_unchanged(folder, watcher):
    write(folder / "a.png", b"1")
    assert watcher.look() == []
    write(folder / "a.png", b"12")
    assert watcher.look() == []
    assert names(watcher.look()) == ["a.png"]
    assert watcher.look() == []


def test_a_folder_that_goes_away_while_it_is_read_brings_nothing_twice(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    folder.mkdir()
    watcher = Watcher([str(folder)], frozenset([".png"]), frozenset())
    write(folder / "a.png", b"1", age=SETTLED + 5)
    assert names(watcher.look()) == ["a.png"]

    def slow(*arguments):
        found = collect(*arguments)
        folder.rename(elsewhere)
        return found

    monkeypatch.setattr(watch_module, "collect", slow)
    assert watcher.look() == []
    monkeypatch.undo()
    elsewhere.rename(folder)
    assert watcher.look() == []


def test_an_old_file_is_complete_at_once(folder, watcher):
    write(folder / "a.png", b"1", age=SETTLED + 5)
    write(folder / "b.png", b"1", age=SETTLED - 2)
    assert names(watcher.look()) == ["a.png"]


@pytest.mark.parametrize("change", ["content", "time", "file"])
def test_a_changed_file_comes_again(folder, watcher, change):
    path = write(folder / "a.png", b"1", age=100)
    assert names(watcher.look()) == ["a.png"]
    if change == "content":
        write(path, b"12", age=100)
    elif change == "time":
        write(path, b"1", age=50)
    else:
        before = path.stat()
        other = write(folder / "other", b"2")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)
    assert names(watcher.look()) == ["a.png"]


def test_a_deleted_file_is_forgotten(folder, watcher):
    path = write(folder / "a.png", b"1", age=100)
    state = path.stat()
    watcher.look()
    path.unlink()
    assert watcher.look() == []
    write(path, b"1")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert names(watcher.look()) == ["a.png"]


def test_results_and_hidden_files_are_no_pictures(folder, watcher):
    for name in ("a.decoded.png", ".a.png.tmp", ".b.png", "a.safetensors", "sub/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name, b"1", age=100)
    assert [source.relative for source in watcher.look()] == [Path("sub/c.png")]


def test_a_folder_that_is_away_for_a_while_is_remembered(folder, watcher):
    write(folder / "a.png", b"1", age=100)
    assert names(watcher.look()) == ["a.png"]
    folder.rename(folder.with_name("away"))
    assert watcher.look() == []
    folder.with_name("away").rename(folder)
    assert watcher.look() == []


def test_a_folder_that_goes_while_it_is_read_ends_nothing(folder, watcher, monkeypatch):
    def vanish(*_):
        raise FileNotFoundError

    write(folder / "a.png", b"1", age=100)
    with monkeypatch.context() as patch:
        patch.setattr("auravae_cli.operations.watch.collect", vanish)
        assert watcher.look() == []
    assert names(watcher.look()) == ["a.png"]


def run(watcher, encode, looks=3):
    """The outcomes of some looks; encode is called with the jobs of each."""
    stop, count = threading.Event(), iter(range(looks))

    def place(source):
        return Job(source, source.path.with_suffix(".safetensors"))

    genuine = watcher.look

    def look():
        if next(count, None) is None:
            stop.set()
            return []
        return genuine()

    watcher.look = look
    return [(o.source.rpartition("/")[2], o.status) for o in watch(watcher, place, encode, stop, 0)]


def test_a_file_that_is_deleted_before_it_is_read_has_no_outcome(folder, watcher):
    write(folder / "gone.png", b"1", age=100)
    write(folder / "bad.png", b"1", age=100)

    def encode(jobs):
        (folder / "gone.png").unlink()
        for job in jobs:
            yield failure(job, InputImageError("why"))

    assert run(watcher, encode) == [("bad.png", "failed")]


def test_of_files_that_are_gone_nothing_is_kept_and_of_others_little(folder, watcher):
    """Some hundreds of bytes a file that lies there; 1.4 kB for ever, of every file, before."""
    held = []

    def encode(jobs):
        yield from map(done, jobs)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
        if len(held) == 4:
            for path in folder.iterdir():
                path.unlink()
        for number in range(100):
            write(folder / f"{len(held)}-{number:05}.png", b"1", age=100)

    write(folder / "a.png", b"1", age=100)
    tracemalloc.start()
    try:
        outcomes = run(watcher, encode, looks=6)
    finally:
        tracemalloc.stop()
    assert len(outcomes) == 1 + 5 * 100 and len(watcher._given) == 200
    assert (held[3] - held[1]) / 200 < 800
    assert held[5] - held[4] < 100 * 800 and held[4] < held[3]


def test_what_waits_behind_the_stop_is_left(folder, watcher):
    for name in "abc":
        write(folder / f"{name}.png", b"1", age=100)
    stop = threading.Event()
    begun = []

    def encode(jobs):
        for job in jobs:
            begun.append(job.source.path.stem)
            stop.set()
            yield done(job)

    outcomes = watch(watcher, lambda s: Job(s, s.path.with_suffix(".st")), encode, stop, 0)
    assert [outcome.status for outcome in outcomes] == ["done"]
    assert begun == ["a"]


def test_one_output_has_one_owner_for_as_long_as_it_exists(folder):
    def encode(jobs):
        return map(done, jobs)

    def outcomes():
        watcher = Watcher([str(folder)], frozenset([".png", ".bmp"]), frozenset())
        return run(watcher, encode)

    first = write(folder / "a.bmp", b"1", age=100)
    write(folder / "a.png", b"1", age=100)
    assert outcomes() == [("a.png", "failed"), ("a.bmp", "done")]
    first.unlink()
    assert outcomes() == [("a.png", "done")]
