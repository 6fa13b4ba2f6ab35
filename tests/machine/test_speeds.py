"""Speeds of earlier runs, kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from auravae_cli.files.cache import cache_path
from auravae_cli.machine.speeds import Speeds, speed_key


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where speeds are kept, in a cache that is still to be made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "auravae" / "speed.json"


def test_what_was_measured_is_known_to_the_next_run(place: Path) -> None:
    speeds = Speeds()
    assert speeds.seconds("a", 10) is None
    speeds.record("a", 1e9, 2.0)
    assert speeds.seconds("a", 3e9) == pytest.approx(6)
    assert not place.exists()
    speeds.save()
    again = Speeds()
    assert again.seconds("a", 3e9) == pytest.approx(6) and again.seconds("b", 1) is None


def test_the_nearest_size_counts(place: Path) -> None:
    speeds = Speeds()
    speeds.record("a", 1e6, 1e-2)  # small ones are slow
    speeds.record("a", 1e12, 1e3)
    assert speeds.seconds("a", 2e6) == pytest.approx(2e-2)
    assert speeds.seconds("a", 5e11) == pytest.approx(5e2)


def test_one_slow_run_moves_a_rate_half_of_the_way(place: Path) -> None:
    speeds = Speeds()
    speeds.record("a", 1e9, 1)
    speeds.record("a", 1e9, 4)
    assert speeds.seconds("a", 1e9) == pytest.approx(2)


def test_two_runs_at_a_time_keep_what_both_found(place: Path) -> None:
    first, second = Speeds(), Speeds()
    first.record("a", 1e9, 1)
    second.record("b", 1e9, 2)
    first.save()
    second.save()
    assert Speeds().seconds("a", 1e9) and Speeds().seconds("b", 1e9)


@pytest.mark.parametrize(
    "content", ["", "no", "[1]", '{"a": 3}', '{"a": {"3": [0, 1]}}', '{"a": {"3": ["x", 1]}}']
)
def test_a_damaged_file_is_none(place: Path, content: str) -> None:
    place.parent.mkdir()
    place.write_text(content)
    speeds = Speeds()
    assert speeds.seconds("a", 8) is None
    speeds.record("a", 1e9, 1)
    speeds.save()
    assert Speeds().seconds("a", 1e9) == 1


def test_where_nothing_can_be_written_nothing_is_remembered(place: Path) -> None:
    place.parent.touch()
    speeds = Speeds()
    speeds.record("a", 1e9, 1)
    speeds.save()
    assert speeds.seconds("a", 1e9) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes here")
def test_what_others_can_write_is_not_believed(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    speeds = Speeds()
    speeds.record("a", 1e9, 1)
    speeds.save()
    assert place.stat().st_mode & 0o777 == 0o600 and place.parent.stat().st_mode & 0o777 == 0o700
    place.chmod(0o622)
    assert Speeds().seconds("a", 1e9) is None
    place.chmod(0o600)
    place.parents[1].chmod(0o777)
    again = Speeds()
    assert again.seconds("a", 1e9) is None
    again.record("a", 1e9, 5)
    again.save()
    assert len(caplog.messages) == 1 and "others may write to" in caplog.messages[0]
    place.parents[1].chmod(0o700)
    assert Speeds().seconds("a", 1e9) == 1


def test_without_a_home_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a container runs as a user of no name."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert cache_path() is None
    speeds = Speeds()
    speeds.record("a", 1e9, 1)
    speeds.save()
    assert speeds.seconds("a", 1e9) == 1


def test_a_rate_belongs_to_what_it_depends_on() -> None:
    keys = {
        speed_key(command, weights, "cpu", dtype, kernels)
        for command in ("encode", "decode")
        for weights in ("1" * 64, "2" * 64)
        for dtype in ("float32", "bfloat16")
        for kernels in ("plain", "native")
    }
    assert len(keys) == 16
