"""Speeds of earlier runs, kept between runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from auravae_cli.speed import Speeds, cache_path, speed_key


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "speed.json"


def test_what_was_measured_is_known_to_the_next_run(place: Path) -> None:
    speeds = Speeds(place)
    assert speeds.seconds("a", 10) is None
    speeds.record("a", 1e9, 2.0)
    assert speeds.seconds("a", 3e9) == pytest.approx(6)
    assert not place.exists()
    speeds.save()
    again = Speeds(place)
    assert again.seconds("a", 3e9) == pytest.approx(6) and again.seconds("b", 1) is None


def test_the_nearest_size_counts(place: Path) -> None:
    speeds = Speeds(place)
    speeds.record("a", 1e6, 1e-2)  # small ones are slow
    speeds.record("a", 1e12, 1e3)
    assert speeds.seconds("a", 2e6) == pytest.approx(2e-2)
    assert speeds.seconds("a", 5e11) == pytest.approx(5e2)


def test_one_slow_run_moves_a_rate_half_of_the_way(place: Path) -> None:
    speeds = Speeds(place)
    speeds.record("a", 1e9, 1)
    speeds.record("a", 1e9, 4)
    assert speeds.seconds("a", 1e9) == pytest.approx(2)


def test_two_runs_at_a_time_keep_what_both_found(place: Path) -> None:
    first, second = Speeds(place), Speeds(place)
    first.record("a", 1e9, 1)
    second.record("b", 1e9, 2)
    first.save()
    second.save()
    assert Speeds(place).seconds("a", 1e9) and Speeds(place).seconds("b", 1e9)


@pytest.mark.parametrize(
    "content", ["", "no", "[1]", '{"a": 3}', '{"a": {"3": [0, 1]}}', '{"a": {"3": ["x", 1]}}']
)
def test_a_damaged_file_is_none(place: Path, content: str) -> None:
    place.parent.mkdir()
    place.write_text(content)
    speeds = Speeds(place)
    assert speeds.seconds("a", 8) is None
    speeds.record("a", 1e9, 1)
    speeds.save()
    assert Speeds(place).seconds("a", 1e9) == 1


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    speeds = Speeds(tmp_path / "file" / "speed.json")
    speeds.record("a", 1e9, 1)
    speeds.save()
    assert speeds.seconds("a", 1e9) == 1


def test_the_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path() == tmp_path / "auravae"


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
        speed_key(command, weights, "cpu", dtype)
        for command in ("encode", "decode")
        for weights in ("1" * 64, "2" * 64)
        for dtype in ("float32", "bfloat16")
    }
    assert len(keys) == 8
