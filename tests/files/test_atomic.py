"""Files are whole or absent."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from auravae_cli.errors import OutputError
from auravae_cli.files import atomic
from auravae_cli.files.atomic import atomic_file, create, write_atomically


def test_a_file_appears_whole_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_file(path) as file:
        file.write(b"first ")
        file.write(b"second")
        assert not path.exists()
    assert path.read_bytes() == b"first second"
    assert list(path.parent.iterdir()) == [path]


def test_an_older_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"something much longer")
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == b"something much longer"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    for expected in ([], [path]):
        with pytest.raises(error), atomic_file(path) as file:
            file.write(b"half")
            raise error
        assert list(tmp_path.iterdir()) == expected
        path.write_bytes(b"old")
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_an_output_error_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    path = tmp_path / "file.bin"
    with pytest.raises(OutputError, match=r"cannot write .*file\.bin: No space left on device"):
        write_atomically(path, b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder: Is a directory"):
        write_atomically(path, b"data")
    assert list(tmp_path.iterdir()) == [path]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "child", b"data")


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "ü" * 127):
        write_atomically(tmp_path / name, b"data")
        assert (tmp_path / name).read_bytes() == b"data"


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    code = (
        f"import os; os.umask({umask}); from pathlib import Path; "
        f"from auravae_cli.files.atomic import write_atomically; "
        f"write_atomically(Path({str(path)!r}), b'data')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_importing_leaves_the_umask_alone() -> None:
    code = "import os; os.umask(0o027); import auravae_cli.files.atomic; print(os.umask(0))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)
    assert int(done.stdout) == 0o027


def test_a_file_is_made_where_none_stands_and_only_there(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(name.encode())
    place = tmp_path / "new" / "file"
    assert create(tmp_path / "first", place)
    assert not create(tmp_path / "second", place)
    assert place.read_bytes() == b"first"
    assert place.stat().st_nlink == 1


def test_a_file_system_without_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(atomic.os, "link", refuse)
    test_a_file_is_made_where_none_stands_and_only_there(tmp_path)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_only_a_file_system_that_cannot_sync_folders_need_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        genuine(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with pytest.raises(OutputError) if number == errno.EIO else nullcontext():
        write_atomically(tmp_path / "file", b"data")


def test_names_of_new_folders_are_on_the_disk_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settled: list[Path] = []
    monkeypatch.setattr(atomic, "settle", settled.append)
    write_atomically(tmp_path / "a" / "b" / "file", b"data")
    assert settled == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_temporary_that_cannot_be_removed_does_not_hide_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(KeyError), atomic_file(tmp_path / "file"):
        raise KeyError
