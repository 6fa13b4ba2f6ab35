"""Folders for unfinished files, with many processes at work in one store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from auravae_cli.pipeline.scratch import SCRATCH, scratch_folder
from auravae_cli.storage import LocalStorage

ONE_OF_MANY = """
import sys
from pathlib import Path
from auravae_cli.pipeline.scratch import scratch_folder
from auravae_cli.storage import LocalStorage
for number in range(300):
    with scratch_folder(LocalStorage(Path(sys.argv[1]))) as folder:
        (folder / "file").write_bytes(b"")
"""


def test_processes_do_not_remove_each_others_folders(tmp_path):
    command = [sys.executable, "-c", ONE_OF_MANY, str(tmp_path)]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [subprocess.Popen(command, env=path) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_is_removed(tmp_path):
    storage = LocalStorage(tmp_path)
    with scratch_folder(storage) as folder:
        dead = folder.with_name(f"{folder.name}x")
        dead.mkdir()
        with scratch_folder(storage) as other:
            assert {path.name for path in (tmp_path / SCRATCH).iterdir()} == {
                folder.name,
                other.name,
            }
    assert list(tmp_path.iterdir()) == []
