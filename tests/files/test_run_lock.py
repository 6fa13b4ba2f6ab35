"""Runs that write into one folder: equal settings share it, others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from auravae_cli.errors import OutputError
from auravae_cli.files import run_lock
from auravae_cli.files.run_lock import NAME, claim_folder

pytest.importorskip("fcntl")


def test_equal_settings_share_and_others_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with claim_folder(folder, "a"), claim_folder(folder, "a"):
        with pytest.raises(OutputError, match="another run writes there with other settings"):
            claim_folder(folder, "b").__enter__()
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]
    with claim_folder(folder, "b"):  # once they have ended
        pass


def test_the_first_may_end_first(tmp_path: Path) -> None:
    first = claim_folder(tmp_path, "a")
    first.__enter__()
    with claim_folder(tmp_path, "a"):
        first.__exit__(None, None, None)
        with pytest.raises(OutputError):
            claim_folder(tmp_path, "b").__enter__()
    assert not list(tmp_path.iterdir())


def test_what_a_dead_run_left_binds_nobody(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("of a longer text than the new one")
    with claim_folder(tmp_path, "b"), claim_folder(tmp_path, "b"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_where_nothing_was_written_goes(tmp_path: Path) -> None:
    with claim_folder(tmp_path / "new", "a"):
        pass
    assert not (tmp_path / "new").exists()


def test_without_locks_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "flock", flock)
    with claim_folder(tmp_path, "a"), claim_folder(tmp_path, "b"):
        pass
    with claim_folder(Path("/proc/nowhere"), "a"):
        pass
