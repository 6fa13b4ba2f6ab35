"""What counts as this user's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from auravae_cli.files.private import InsecureError, private_folder, read_private, write_private

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes here")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o755)
    return tmp_path / "home"


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it somebody else's; without the right to do so, be somebody else."""
    if os.getuid() == 0:
        os.chown(path, 4321, -1, follow_symlinks=False)
    else:
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_it_is_made_for_nobody_else(home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        private_folder(home / "a" / "b")
    assert not list(home.iterdir())
    assert private_folder(home / "a" / "b", make=True) == home / "a" / "b"
    assert mode(home / "a") == mode(home / "a" / "b") == 0o700
    assert private_folder(home / "a" / "b", make=True) == private_folder(home / "a" / "b")


def test_one_of_ours_that_others_may_read_is_closed(home: Path) -> None:
    (home / "a").mkdir(mode=0o755)
    assert mode(private_folder(home / "a")) == 0o700


@pytest.mark.parametrize("bits", [0o777, 0o775, 0o722])
def test_nobody_else_may_put_another_in_its_place(home: Path, bits: int) -> None:
    folder = private_folder(home / "a" / "b", make=True)
    home.chmod(bits)
    with pytest.raises(InsecureError, match=f"others may write to {home}"):
        private_folder(folder)
    home.chmod(bits | 0o1000)  # as /tmp has it: only owners may move what is there
    assert private_folder(folder) == folder


@pytest.mark.parametrize("step", ["a", "a/b"])
def test_no_folder_of_another_user_is_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = private_folder(home / "a" / "b", make=True)
    give_away(home / step, monkeypatch)
    with pytest.raises(InsecureError, match="belongs to user"):
        private_folder(folder, make=True)


def test_links_of_ours_are_followed_and_what_they_lead_through_is_checked(home: Path) -> None:
    folder = private_folder(home / "far" / "a", make=True)
    (home / "near").symlink_to("far/../far")
    assert private_folder(home / "near" / "a") == folder
    (home / "absolute").symlink_to(home / "near")
    assert private_folder(home / "absolute" / "a") == folder
    (home / "far").chmod(0o777)
    with pytest.raises(InsecureError, match=f"others may write to {home}/far"):
        private_folder(home / "absolute" / "a")


def test_links_of_others_are_not_followed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder(home / "far", make=True)
    home.chmod(0o1777)
    (home / "near").symlink_to("far")
    give_away(home / "near", monkeypatch)
    with pytest.raises(InsecureError, match="belongs to user"):
        private_folder(home / "near")


def test_links_in_a_ring_and_what_is_no_folder(home: Path) -> None:
    (home / "ring").symlink_to("ring")
    (home / "file").touch()
    (home / "gone").symlink_to("nowhere")
    with pytest.raises(InsecureError, match="from link to link"):
        private_folder(home / "ring", make=True)
    with pytest.raises(NotADirectoryError):
        private_folder(home / "file" / "a", make=True)
    assert private_folder(home / "gone", make=True) == home / "nowhere"


def test_a_file_that_is_written_can_be_read_by_its_owner_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "file"
    write_private(path, b"content")
    assert mode(path) == 0o600 and read_private(path) == b"content"
    for bits in (0o620, 0o602):
        path.chmod(bits)
        with pytest.raises(InsecureError, match="others may write"):
            read_private(path)
    path.chmod(0o600)
    (home / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        read_private(home / "link")
    os.mkfifo(home / "pipe")
    with pytest.raises(InsecureError, match="not a regular file"):
        read_private(home / "pipe")
    give_away(path, monkeypatch)
    with pytest.raises(InsecureError, match="belongs to user"):
        read_private(path)
