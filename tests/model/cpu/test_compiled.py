"""The library of native.c: where it is kept, that it is ours and whole, and what happens without it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from auravae_cli.diagnostics.doctor import _device
from auravae_cli.files import cache
from auravae_cli.model.codec import load_codec
from auravae_cli.model.cpu import compiled, native, shipped
from auravae_cli.model.cpu.native import PLAIN
from auravae_cli.model.engine import engine_for

pytestmark = pytest.mark.skipif(native.kernels() is None, reason="no C compiler here")
needs_owners = pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes here")


def forget():
    native._found.cache_clear()
    cache.passing_folder.cache_clear()


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No kernels known yet, and a cache and temporary folders of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "far" / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    forget()
    yield tmp_path / "far" / "home" / "auravae"
    forget()


@pytest.fixture
def builds(monkeypatch):
    """The folders that the kernels are built in, as they are."""
    genuine, found = compiled._build, []

    def build(compiler, source, folder, name):
        found.append(folder)
        return genuine(compiler, source, folder, name)

    monkeypatch.setattr(compiled, "_build", build)
    return found


def is_passing(folder):
    """Whether a folder lies among the temporary ones, and is this user's alone."""
    return folder.parent == Path(tempfile.gettempdir()) and folder.stat().st_mode & 0o777 == 0o700


def test_it_is_built_once(fresh, builds):
    assert native.kernels() is not None
    (library,) = fresh.iterdir()
    forget()
    assert native.kernels() is not None
    assert builds == [fresh] and list(fresh.iterdir()) == [library]
    assert fresh.stat().st_mode & 0o777 == 0o700 and library.stat().st_mode & 0o777 == 0o600


DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "pages of zeros": lambda content: content[:4096] + bytes(8192) + content[12288:],
    "a bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_built_again(fresh, builds, damage):
    """In a process of its own: if it were loaded, the process would end."""
    assert native.kernels() is not None
    (library,) = fresh.iterdir()
    genuine = library.read_bytes()
    library.unlink()  # this process has loaded it
    library.write_bytes(DAMAGES[damage](genuine))
    code = "from auravae_cli.model.cpu import native; print(native.kernels() is not None)"
    for _ in range(2):
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert found.stdout.strip() == b"True"
        assert list(fresh.iterdir()) == [library] and library.read_bytes() == genuine


def test_what_is_built_is_on_the_disk_before_it_has_its_name(fresh, monkeypatch):
    """Or a power failure would leave a file of the right name and size, without its content."""
    steps, sync, move = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: steps.append("sync") or sync(file))
    monkeypatch.setattr(Path, "replace", lambda *names: steps.append("name") or move(*names))
    assert native.kernels() is not None
    assert steps == ["sync", "name", "sync"]


def test_builds_that_were_killed_are_cleared_away(fresh):
    fresh.mkdir(parents=True)
    old, new = fresh / ".native-old", fresh / ".native-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "native.so").write_bytes(b"half")
    os.utime(old, (1, 1))
    assert native.kernels() is not None
    assert not old.exists() and new.exists()


@needs_owners
@pytest.mark.parametrize("place", ["folder above", "link", "file"])
def test_a_library_that_others_can_change_is_not_loaded(fresh, builds, monkeypatch, caplog, place):
    """It is built for this process alone, or anew, and that is said."""
    assert native.kernels() is not None
    (library,) = fresh.iterdir()
    foreign = b"somebody else's"
    planted = shipped.place(fresh, library.name[:23], foreign)
    planted.write_bytes(foreign)
    library.unlink()
    if place == "folder above":
        fresh.parent.chmod(0o777)
    elif place == "link":
        fresh.parents[1].chmod(0o777)
        fresh.parent.rename(fresh.parents[1] / "elsewhere")
        fresh.parent.symlink_to("elsewhere")
    else:
        planted.chmod(0o666)
    forget()
    assert native.kernels() is not None
    if place == "file":
        assert builds == [fresh, fresh] and not caplog.messages
    else:
        assert is_passing(builds[-1])
        assert len(caplog.messages) == 1 and "others may write to" in caplog.messages[0]


@needs_owners
def test_without_any_safe_place_others_do_the_work(fresh, monkeypatch):
    fresh.parents[2].chmod(0o777)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert native.kernels() is None
    assert "others may write to" in native.trouble()
    check = _device(load_codec("small", device="cpu"))
    assert "others may write to" in check.finding


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("step", ["_kept", "_build", "private_folder"])
def test_a_cache_that_cannot_be_used_is_done_without(fresh, monkeypatch, builds, code, step):
    owner = cache if step == "private_folder" else compiled
    genuine = getattr(owner, step)

    def fail(*arguments, **options):
        if any(isinstance(path, Path) and path.is_relative_to(fresh) for path in arguments):
            raise OSError(code, os.strerror(code))
        return genuine(*arguments, **options)

    monkeypatch.setattr(owner, step, fail)
    assert native.kernels() is not None
    assert is_passing(builds[-1]) and not list(fresh.parent.rglob("*.so"))


@pytest.mark.parametrize("home", ["/dev/null", "/proc", None])
def test_without_a_home_kernels_are_built_all_the_same(fresh, monkeypatch, builds, home):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    assert native.kernels() is not None
    assert is_passing(builds[-1])


@pytest.mark.parametrize("command", ["nowhere-to-be-found", f"{sys.executable} -c exit(1)"])
def test_without_a_compiler_others_do_the_work(fresh, monkeypatch, command):
    monkeypatch.setenv("CC", command)
    assert native.kernels() is None
    assert command.split()[0] in native.trouble()
    assert engine_for(torch.device("cpu"), torch.float32) == PLAIN


def test_kernels_that_err_are_not_used(fresh, monkeypatch, tmp_path):
    wrong = tmp_path / "wrong.c"
    wrong.write_text(native.SOURCE.read_text().replace("0.0625f * e", "0.07f * e"))
    monkeypatch.setattr(native, "SOURCE", wrong)
    assert native.kernels() is None
    assert "wrong numbers" in native.trouble()
