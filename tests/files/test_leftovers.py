"""What a killed run left goes with the next one into the same folder, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from auravae_cli.files import leftovers
from auravae_cli.files.atomic import write_atomically
from auravae_cli.files.leftovers import claim_file, machine

REPOSITORY = Path(__file__).parents[2]
WRITE = """
import sys, time
from pathlib import Path
from auravae_cli.files.atomic import atomic_file
with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.readline()
"""
MANY = """
import sys
from pathlib import Path
from auravae_cli.files.atomic import write_atomically
from auravae_cli.files import leftovers
for number in range(200):
    leftovers._sweep_once.cache_clear()
    write_atomically(Path(sys.argv[1], sys.argv[2]), sys.argv[2].encode())
"""
pytestmark = pytest.mark.skipif(not leftovers.HAS_LOCKS, reason="locks of POSIX")


@pytest.fixture(autouse=True)
def another_process():
    """This one has swept no folder yet."""
    leftovers._sweep_once.cache_clear()


@pytest.fixture
def writer():
    """Start a process that is in the middle of a file."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path)],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_by(maker: str, folder: Path, age: float = 0) -> Path:
    path = folder / f".000109.tar.{maker}.zfha4gjx.auravae"
    path.write_bytes(b"half")
    os.utime(path, (1, time.time() - age))
    return path


def test_what_a_killed_process_left_goes_what_a_live_one_writes_stays(tmp_path, writer):
    dead, alive = writer(tmp_path / "a"), writer(tmp_path / "a")
    assert len(names(tmp_path)) == 2
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    write_atomically(tmp_path / "b", b"whole")
    assert len(names(tmp_path)) == 2  # b, and what is being written
    alive.stdin.write("\n")
    alive.stdin.flush()
    assert alive.wait(30) == 0
    assert names(tmp_path) == ["a", "b"]


def test_a_stopped_process_is_alive(tmp_path, writer):
    process = writer(tmp_path / "a")
    process.send_signal(signal.SIGSTOP)
    write_atomically(tmp_path / "b", b"whole")
    process.send_signal(signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(30) == 0
    assert names(tmp_path) == ["a", "b"]


def test_other_machines_are_left_alone_until_they_are_old(tmp_path):
    young = left_by("0" * 12, tmp_path)
    old = left_by("1" * 12, tmp_path, leftovers.OLD + 60)
    write_atomically(tmp_path / "a", b"")
    assert young.exists() and not old.exists()


def test_without_locks_age_alone_decides(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(leftovers.fcntl, "flock", refuse)
    left = left_by(machine(), tmp_path)
    write_atomically(tmp_path / "a", b"")
    assert left.exists()


def test_only_files_with_a_name_of_ours_go(tmp_path):
    kept = [".000109.tar.zfha4gjx", ".a.auravae", f"a.{machine()}.zfha4gjx.auravae", ".auravae"]
    for name in kept:
        (tmp_path / name).write_bytes(b"the user's")
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f".a.{machine()}.aaaaaaaa.auravae").symlink_to("precious")
    (tmp_path / f".b.{machine()}.aaaaaaaa.auravae").mkdir()
    os.mkfifo(tmp_path / f".c.{machine()}.aaaaaaaa.auravae")
    before = names(tmp_path)
    write_atomically(tmp_path / "new", b"")
    assert names(tmp_path) == sorted([*before, "new"])
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_newborn_that_is_swept_is_made_again(tmp_path, monkeypatch):
    """Another run sweeps between the making of the file and its lock."""
    genuine, made = leftovers.tempfile.mkstemp, []

    def mkstemp(**options):
        descriptor, path = genuine(**options)
        if not made:
            leftovers._remove_if_dead(path, machine())
        made.append(path)
        return descriptor, path

    monkeypatch.setattr(leftovers.tempfile, "mkstemp", mkstemp)
    descriptor, path = claim_file(tmp_path, "a")
    os.close(descriptor)
    assert len(made) == 2 and path == Path(made[1]) and path.exists()


def test_runs_that_sweep_each_others_folder_lose_nothing(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    processes = [
        subprocess.Popen([sys.executable, "-c", MANY, str(tmp_path), name], env=environment)
        for name in "abc"
    ]
    assert [process.wait(120) for process in processes] == [0] * 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        name: name.encode() for name in "abc"
    }


def test_threads_that_write_at_once(tmp_path):
    errors = []

    def write(number):
        try:
            for _ in range(20):
                leftovers._sweep_once.cache_clear()
                write_atomically(tmp_path / f"{number}", b"%d" % number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and names(tmp_path) == ["0", "1", "2", "3"]


def test_a_folder_that_may_not_be_listed(tmp_path):
    leftovers._sweep_once(str(tmp_path / "missing"))
