"""Batches of a run are measured one by one, and what they tell is saved once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from auravae_cli.errors import ModelError
from auravae_cli.files.private import write_private
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.machine.meter import Meter
from auravae_cli.machine.speeds import Speeds, speed_key
from auravae_cli.model.planning.run_plan import Plan
from auravae_cli.operations import timed_batches
from auravae_cli.operations.batches import Outcome, Ready, done, run
from auravae_cli.operations.inputs import Source
from auravae_cli.operations.outputs import Job
from auravae_cli.operations.timed_batches import ENCODE_PARTS, Stopwatch
from auravae_cli.symmetry.group import Irreps

CODEC: Any = SimpleNamespace(
    space=LatentSpace("linear", "f" * 64, 8, Irreps.parse("16xee"), 8.0),
    device="cpu",
    compute_dtype="float32",
    engine="plain",
    autoencoder=SimpleNamespace(
        plan=lambda part, batch, height, width: Plan(part, batch, height, width, 1, height * width)
    ),
)
KEY = speed_key("encode", "f" * 64, "cpu", "float32", "plain")
SIDES = (8, 16, 32)  # each of another power of two, so that each has a rate of its own


class SteadyMeter(Meter):
    """Every piece of work takes a second."""

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.seconds = 1.0


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where speeds are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "auravae" / "speed.json"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that speeds are saved to, as they are."""
    places = []

    def write(path: Path, data: bytes) -> None:
        places.append(path)
        write_private(path, data)

    monkeypatch.setattr("auravae_cli.machine.speeds.write_private", write)
    return places


class Squares:
    """A picture of each size, and then an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def jobs(self) -> Iterator[Job]:
        for side in SIDES:
            yield Job(Source(Path(f"{side}.png"), Path(f"{side}.png")), None)
        if self.error is not None:
            raise self.error

    def read(self, job: Job) -> Ready[int]:
        side = int(job.source.relative.stem)
        return Ready(job, side, CODEC, (side, side))

    def finish(self, batch: Sequence[Ready[int]]) -> list[Outcome]:
        return [done(ready.job) for ready in batch]


def measured(watch: Stopwatch, error: Exception | None = None) -> Iterator[Outcome]:
    """The outcomes of a batch of each size, and then an error."""
    work = Squares(error)
    return run(work.jobs(), work, watch)


def known(place: Path) -> int:
    return sum(Speeds().seconds(KEY, side * side) is not None for side in SIDES)


def test_what_was_measured_is_saved_once(place: Path, writes: list[Path]) -> None:
    watch = Stopwatch("encode", ENCODE_PARTS, Speeds())
    for _ in measured(watch):
        assert not writes
    assert writes == [place] and known(place) == len(SIDES)


def test_a_run_that_is_given_up_saves_what_it_measured(place: Path, writes: list[Path]) -> None:
    watch = Stopwatch("encode", ENCODE_PARTS, Speeds())
    outcomes = measured(watch)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined] # a generator
    assert writes == [place] and known(place)


def test_a_run_that_ends_in_an_error_saves_what_it_measured(
    place: Path, writes: list[Path]
) -> None:
    watch = Stopwatch("encode", ENCODE_PARTS, Speeds())
    with pytest.raises(ModelError, match="gone"):
        list(measured(watch, ModelError("gone")))
    assert writes == [place] and known(place) == len(SIDES)


def test_what_others_saved_meanwhile_stays(place: Path) -> None:
    watch = Stopwatch("encode", ENCODE_PARTS, Speeds())
    outcomes = measured(watch)
    next(outcomes)
    other = Speeds()
    other.record("another", 1e9, 1)
    other.save()
    list(outcomes)
    assert known(place) == len(SIDES) and Speeds().seconds("another", 1e9) == 1


def test_speeds_that_stayed_as_they_were_are_not_saved_again(
    place: Path, writes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_batches, "Meter", SteadyMeter)
    for _ in range(2):
        watch = Stopwatch("encode", ENCODE_PARTS, Speeds())
        list(measured(watch))
    assert writes == [place]
