"""Scratch folders: gone with their process, however it ends, and never with that of another."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from auravae_cli.errors import OutputError
from auravae_cli.files import leftovers, scratch as module
from auravae_cli.files.leftovers import machine
from auravae_cli.files.scratch import SCRATCH, publish_bytes, scratch_folder
from auravae_cli.files.storage import LocalStorage, open_storage

HOLD = """
import sys, time
from auravae_cli.files.scratch import scratch_folder
from auravae_cli.files.storage import open_storage
with scratch_folder(open_storage(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""

ONE_OF_MANY = """
import sys
from pathlib import Path
from auravae_cli.files.scratch import scratch_folder
from auravae_cli.files.storage import LocalStorage
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


def left_by(maker: str, parent: Path, name: str, **files: bytes) -> Path:
    """A folder as a killed process leaves it."""
    folder = parent / f"{module._PREFIX}{maker}.{name * 8}"
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def age(*paths: Path) -> None:
    """Make them older than any run."""
    for path in paths:
        for each in (*path.rglob("*"), path):
            os.utime(each, (1, time.time() - leftovers.OLD - 3600), follow_symlinks=False)


@pytest.mark.parametrize("written", [None, 0, 10, len(module._MARK)])
def test_a_process_killed_while_it_makes_its_folder_leaves_nothing(tmp_path, written):
    files = {} if written is None else {"lock": module._MARK[:written]}
    left = left_by(machine(), tmp_path / SCRATCH, "a", **files)
    with scratch_folder(LocalStorage(tmp_path)):
        assert not left.exists()
    assert not list(tmp_path.iterdir())


def test_other_machines_are_left_alone_until_they_are_old(tmp_path):
    names = {"young": "a", "old": "b", "at work": "c"}
    folders = {
        what: left_by("0" * 12, tmp_path / SCRATCH, name, lock=module._MARK, output=b"x")
        for what, name in names.items()
    }
    age(folders["old"], folders["at work"])
    os.utime(folders["at work"] / "output")
    with scratch_folder(LocalStorage(tmp_path)):
        assert [what for what in names if folders[what].exists()] == ["young", "at work"]


@pytest.mark.parametrize("maker", [machine(), "0" * 12], ids=["here", "elsewhere"])
def test_what_is_not_ours_stays_whatever_its_age(tmp_path, maker):
    """Folders of the user's, links, and what is behind them."""
    parent, precious = tmp_path / SCRATCH, tmp_path / "ten days of work"
    (precious / "in it").mkdir(parents=True)
    (precious / "model.pt").write_bytes(b"precious")
    (precious / "lock").write_bytes(module._MARK)
    parent.mkdir()
    link = parent / f"{module._PREFIX}{maker}.aaaaaaaa"
    link.symlink_to(precious, target_is_directory=True)
    (parent / "notes").mkdir()
    (parent / "notes" / "lock").write_bytes(module._MARK)
    left_by(maker, parent, "b", notes=b"no mark")
    left_by(maker, parent, "c", lock=b"my own", notes=b"another mark")
    left_by(maker, parent, "d", lock=b"", notes=b"an empty lock, and more")
    behind = left_by(maker, parent, "e")
    (behind / "lock").symlink_to(precious / "model.pt")
    with_folder = left_by(maker, parent, "f", lock=module._MARK)
    (with_folder / "deep").mkdir()
    (with_folder / "deep" / "notes").write_bytes(b"files of ours lie flat")
    age(parent, precious)
    before = set(tmp_path.rglob("*"))
    with scratch_folder(LocalStorage(tmp_path)):
        pass
    assert set(tmp_path.rglob("*")) == before
    assert (precious / "model.pt").read_bytes() == b"precious"


def test_links_in_a_dead_folder_go_and_what_is_behind_them_stays(tmp_path):
    left = left_by(machine(), tmp_path / SCRATCH, "a", lock=module._MARK)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").write_bytes(b"x")
    (left / "output").symlink_to(tmp_path / "precious", target_is_directory=True)
    with scratch_folder(LocalStorage(tmp_path)):
        assert not left.exists()
    assert (tmp_path / "precious" / "x").read_bytes() == b"x"


def test_a_kill_while_a_dead_folder_is_removed_leaves_it_ours(tmp_path, monkeypatch):
    left = left_by(machine(), tmp_path / SCRATCH, "a", lock=module._MARK, b=b"", output=b"")
    genuine, removed = os.unlink, []

    def unlink(path, **options):
        if removed:
            raise OSError("killed")
        removed.append(path)
        genuine(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(OSError, match="killed"):
        module._remove(left)
    monkeypatch.setattr(os, "unlink", genuine)
    assert len(list(left.iterdir())) == 2
    with scratch_folder(LocalStorage(tmp_path)):
        assert not left.exists()


def test_a_link_in_its_place_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / SCRATCH).symlink_to("elsewhere", target_is_directory=True)
    with (
        pytest.raises(OutputError, match="a link, and links are not followed"),
        scratch_folder(LocalStorage(tmp_path)),
    ):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_the_one_of_a_remote_store_is_private_and_new(tmp_path, monkeypatch):
    """Whatever lies in the shared folder already: nobody can know its name before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"auravae-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / SCRATCH).symlink_to("/", target_is_directory=True)
    before, names = set(tmp_path.iterdir()), set()
    for _ in range(2):
        with scratch_folder(open_storage("memory://scratch")) as folder:
            status = folder.lstat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, os.geteuid())
            assert folder.parent == tmp_path and folder not in before
            names.add(folder.name)
    assert len(names) == 2 and set(tmp_path.iterdir()) == before


def test_a_full_disk_while_it_is_made_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"), scratch_folder(LocalStorage(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


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

    monkeypatch.setattr(leftovers.fcntl, "flock", refuse)
    young, old = (left_by(machine(), tmp_path / SCRATCH, n, lock=module._MARK) for n in "ab")
    age(old)
    with scratch_folder(LocalStorage(tmp_path)) as folder:
        assert folder.is_dir() and young.exists() and not old.exists()


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
