"""A few cases of every target of benchmarks/fuzz.py, and what it would say of a fault."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
CASES = 12

pytestmark = [
    pytest.mark.xdist_group("fuzz"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux"),
]


@pytest.fixture(scope="module")
def fuzz():
    """The program as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROGRAM.parent))
        yield importlib.import_module("fuzz")
    for name in ("fuzz", "damage"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def sound(fuzz, tmp_path_factory):
    """Sound files of every kind."""
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AURAVAE_MODEL", "linear")
        return fuzz.sound_inputs(tmp_path_factory.mktemp("fuzz") / "sound")


def test_every_damage_is_told_as_one_of_ours(fuzz, sound, monkeypatch):
    monkeypatch.setenv("AURAVAE_MODEL", "linear")
    found = {target.name: fuzz.fuzz(target, sound, CASES, seed=1) for target in fuzz.TARGETS}
    assert {name: counts.examples for name, counts in found.items() if counts.faults} == {}
    assert {counts.cases for counts in found.values()} == {CASES}


def test_every_target_has_files_that_are_read(fuzz, sound, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "ours", lambda work: work())  # no error of ours is passed over
    monkeypatch.setattr(fuzz, "damage", lambda rng, name, data: data)
    for target in fuzz.TARGETS:
        counts = fuzz.run_target(target, sound, range(1), 0, tmp_path / target.name)
        assert counts.faults == 0, counts.examples


def plant(fuzz, read):
    return fuzz.Target("planted", "store/store.json", read)


def test_faults_are_seen(fuzz, sound, monkeypatch):
    monkeypatch.setattr(fuzz, "MEMORY", 256 << 20)

    def fail(inputs, output, file):
        raise KeyError("x")

    def write_outside(inputs, output, file):
        (output / ".." / ".." / "escaped").write_text("x")

    def wait(inputs, output, file):
        while True:
            pass

    def take(inputs, output, file):
        bytearray(2 * fuzz.MEMORY)

    kinds = {"foreign": fail, "outside": write_outside, "slow": wait, "memory": take}
    for kind, read in kinds.items():
        monkeypatch.setattr(fuzz, "SECONDS", 1 if kind == "slow" else 60)
        counts = fuzz.fuzz(plant(fuzz, read), sound, 2 if kind != "slow" else 1, seed=0)
        assert counts.faults == getattr(counts, kind) > 0, (kind, counts)


def test_a_process_that_dies_is_a_fault(fuzz, sound):
    def die(inputs, output, file):
        fuzz.os._exit(1)

    assert fuzz.fuzz(plant(fuzz, die), sound, 1, seed=0).faults == 1


def test_the_same_seed_is_the_same_damage(fuzz, sound):
    for path in sorted(path for path in sound.rglob("*") if path.is_file()):
        data = path.read_bytes()
        one, other = (fuzz.damage(random.Random(3), path.name, data) for _ in range(2))
        assert one == other
