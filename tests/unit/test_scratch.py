"""Scratch folders: gone with their process, however it ends, and never with that of another."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from auravae_cli.errors import OutputError
from auravae_cli.pipeline import scratch as module
from auravae_cli.pipeline.scratch import SCRATCH, publish_bytes, scratch_folder
from auravae_cli.storage import LocalStorage, open_storage

HOLD = """
import sys, time
from auravae_cli.pipeline.scratch import scratch_folder
from auravae_cli.storage import open_storage
with scratch_folder(open_storage(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""

ONE_OF_MANY = """
import sys
from pathlib import Path
from auravae_cli.pipeline.scratch import scratch_folder
from auravae_cli.storage import LocalStorage
for number in range(300):
    with scratch_folder(LocalStorage(Path(sys.argv[1]))) as folder:
        (folder / "file").write_bytes(b"")
"""


@pytest.fixture
def holder():
    """Start a process that holds a scratch folder; gives the process and the folder."""
    started = []

    def start(location):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(location)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_is_there_and_gone(tmp_path):
    with scratch_folder(LocalStorage(tmp_path / "store")) as folder:
        assert folder.is_dir() and folder.is_relative_to(tmp_path / "store" / SCRATCH)
        (folder / "file").write_bytes(b"x")
    assert list((tmp_path / "store").iterdir()) == []


def test_an_error_removes_it_too(tmp_path):
    with pytest.raises(KeyError), scratch_folder(LocalStorage(tmp_path)):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["store", "memory://scratch"])
def test_a_dead_process_is_swept_a_live_one_is_not(tmp_path, monkeypatch, holder, location):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    dead, left = holder(location)
    _, held = holder(location)
    with scratch_folder(open_storage(location)) as folder:
        assert len({left.name, held.name, folder.name}) == 3
        assert (left / "half").exists() and (held / "half").exists()
    dead.kill()
    dead.wait()
    with scratch_folder(open_storage(location)):
        assert not left.exists()
        assert (held / "half").exists()
    assert (held / "half").exists()


def test_what_a_process_left_before_it_had_its_lock_is_swept(tmp_path):
    left = tmp_path / SCRATCH / f"{module._host()}.abc"
    left.mkdir(parents=True)
    with scratch_folder(LocalStorage(tmp_path)):
        assert not left.exists()


def test_other_machines_are_left_alone_until_they_are_old(tmp_path):
    young, old = (tmp_path / SCRATCH / f"{module._host()}-2.{name}" for name in ("a", "b"))
    young.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (1, time.time() - 8 * 24 * 3600))
    with scratch_folder(LocalStorage(tmp_path)):
        assert young.exists() and not old.exists()
    assert young.exists()


def test_processes_that_start_and_end_together(tmp_path):
    """The sweep of one finds the newborn folder of another; the end of one, the parent of another."""
    storage, errors = LocalStorage(tmp_path), []

    def work():
        try:
            for number in range(60):
                with scratch_folder(storage) as folder:
                    (folder / "x").write_bytes(b"%d" % number)
                    assert (folder / "x").read_bytes() == b"%d" % number
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(tmp_path.iterdir()) == []


def test_a_newborn_that_is_swept_is_made_again(tmp_path, monkeypatch):
    """Another process sweeps between the making of the folder and its lock."""
    genuine, swept = tempfile.mkdtemp, []

    def mkdtemp(**options):
        folder = genuine(**options)
        if not swept:
            swept.append(folder)
            module._sweep(Path(folder).parent)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with scratch_folder(LocalStorage(tmp_path)) as folder:
        assert folder.is_dir() and str(folder) != swept[0]


def test_without_locks_it_works_and_age_alone_decides(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    left = tmp_path / SCRATCH / f"{module._host()}.abc"
    left.mkdir(parents=True)
    with scratch_folder(LocalStorage(tmp_path)) as folder:
        assert folder.is_dir() and left.exists()


def test_a_place_that_takes_none(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(OutputError, match="cannot write"),
        scratch_folder(LocalStorage(tmp_path / "file")),
    ):
        pass


def test_a_small_file_appears_whole(tmp_path):
    storage = LocalStorage(tmp_path)
    with scratch_folder(storage) as folder:
        publish_bytes(storage, folder, "sub/a.json", b"{}")
        assert list(folder.iterdir()) == [folder / "lock"]
    assert storage.read("sub/a.json") == b"{}"
    with pytest.raises(OutputError, match=r"cannot write b\.json"):
        publish_bytes(storage, tmp_path / "gone", "b.json", b"{}")


def test_processes_do_not_remove_each_others_folders(tmp_path):
    command = [sys.executable, "-c", ONE_OF_MANY, str(tmp_path)]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [subprocess.Popen(command, env=path) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert list(tmp_path.iterdir()) == []
