"""The libraries that a wheel brings: for which processors, and that nobody else's is loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from auravae_cli.model.cpu import bfloat16, compiled, native, shipped

pytestmark = [
    pytest.mark.xdist_group("shipped kernels"),
    pytest.mark.skipif(native.kernels() is None, reason="no C compiler here"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What a wheel built here would bring."""
    folder = tmp_path_factory.mktemp("kernels")
    return folder, compiled.build_all(folder)


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """An installation with kernels, on a machine without a compiler and without a cache."""
    mine = shutil.copytree(made[0], tmp_path / "kernels")
    monkeypatch.setattr(shipped, "FOLDER", mine)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native._found.cache_clear()
    yield mine
    native._found.cache_clear()


def test_each_level_has_all_kernels(made):
    folder, built = made
    assert built and all(len(paths) == len(shipped.SOURCES) for paths in built.values())
    assert sorted(folder.iterdir()) == sorted({path for each in built.values() for path in each})


def test_without_a_compiler_those_of_the_package_run(folder, tmp_path):
    assert native.kernels() is not None and native.kernels().path.parent == folder
    found = native.find(bfloat16.SOURCE, bfloat16.Products, bfloat16.are_right)
    assert isinstance(found, native.Convolutions) == (bfloat16.kernels() is not None)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["cut off", "others may write to it", "of another source"])
def test_a_library_that_is_not_what_it_should_be_is_not_loaded(folder, damage):
    mine = shipped.shipped(native.SOURCE)
    assert mine is not None
    if damage == "cut off":
        mine.write_bytes(mine.read_bytes()[:5000])
    elif damage == "of another source":
        mine.rename(mine.with_name(mine.name.replace(native.SOURCE.stem, "native2")))
    elif hasattr(os, "getuid"):
        mine.chmod(0o666)
    else:
        pytest.skip("no owners and modes here")
    assert native.kernels() is None and "no C compiler" in native.trouble()


def test_a_named_compiler_builds_its_own(folder, monkeypatch):
    monkeypatch.setenv("CC", "nowhere-to-be-found")
    assert native.kernels() is None and "nowhere-to-be-found" in native.trouble()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_processor_gets_the_best_level_that_it_reaches(machine):
    levels = shipped.LEVELS[machine]
    for level, (needed, _) in levels.items():
        assert shipped.level_of([*needed, "fpu"], machine) == level
        for flag in needed:
            assert shipped.level_of(needed - {flag}, machine) != level


def test_the_level_is_that_of_this_processor(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "flags\t\t: fpu avx2\n")
    assert shipped._features() == ["fpu", "avx2"]
