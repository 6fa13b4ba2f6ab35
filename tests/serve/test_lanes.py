"""Turns in the model: batches, order, cancelled ones, and one bad item among good ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from auravae_cli.errors import ComputeError
from auravae_cli.serve.lanes import Lanes, Turn

PATIENCE = 30


class Recorder:
    """What a lane runs: it notes each batch, and waits at the gate."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.begun, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()

    def run(self, codec: Any, items: list[Any]) -> list[Any]:
        self.batches.append(items)
        self.begun.release()
        assert self.gate.wait(PATIENCE)
        if "bug" in items:
            raise ZeroDivisionError
        if "bad" in items:
            raise ComputeError("bad")
        return [f"{item}!" for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def lanes() -> Iterator[Any]:
    """``lanes(batch_size, device)``: closed in the end."""
    made = []

    def make(
        batch_size: int = 4, device: str = "cpu", linger: float = 0.2, codecs: int = 1
    ) -> Lanes:
        codec = SimpleNamespace(device=device)
        made.append(Lanes([codec] * codecs, batch_size, linger))  # type: ignore[list-item]
        return made[-1]

    yield make
    for found in made:
        found.close()


def hold(found: Lanes, recorder: Recorder, is_large: bool = False) -> Any:
    """Have the lane work on something until the gate opens."""
    recorder.gate.clear()
    future = found.submit(Turn(recorder.run, None, "held"), is_large)
    assert recorder.begun.acquire(timeout=PATIENCE)
    return future


def test_equal_shapes_go_together(lanes, recorder):
    found = lanes()
    held = hold(found, recorder)
    shapes = {"a": 1, "b": 2, "c": 1, "d": 1, "e": 2, "f": 1, "g": 1}
    futures = {n: found.submit(Turn(recorder.run, s, n), False) for n, s in shapes.items()}
    recorder.gate.set()
    assert [f.result(PATIENCE) for f in futures.values()] == [f"{n}!" for n in shapes]
    assert held.result(PATIENCE) == "held!"
    assert recorder.batches == [["held"], ["a", "c", "d", "f"], ["b", "e"], ["g"]]


def test_the_first_waits_a_moment_for_others(lanes, recorder):
    found = lanes(batch_size=2, linger=PATIENCE)
    first = found.submit(Turn(recorder.run, 1, "a"), False)
    second = found.submit(Turn(recorder.run, 1, "b"), False)
    assert [first.result(PATIENCE / 2), second.result(1)] == ["a!", "b!"]
    assert recorder.batches == [["a", "b"]]


def test_one_of_a_batch_that_fails_fails_alone(lanes, recorder):
    found = lanes(batch_size=3)
    hold(found, recorder)
    futures = [found.submit(Turn(recorder.run, 1, n), False) for n in ("a", "bad", "c")]
    recorder.gate.set()
    assert (futures[0].result(PATIENCE), futures[2].result(PATIENCE)) == ("a!", "c!")
    with pytest.raises(ComputeError):
        futures[1].result(PATIENCE)


def test_a_bug_ends_no_lane(lanes, recorder):
    found = lanes()
    with pytest.raises(ZeroDivisionError):
        found.submit(Turn(recorder.run, None, "bug"), False).result(PATIENCE)
    assert found.submit(Turn(recorder.run, None, "a"), False).result(PATIENCE) == "a!"


def test_small_ones_pass_a_large_one_on_a_cpu(lanes, recorder):
    found, quick = lanes(), Recorder()
    large = hold(found, recorder, is_large=True)
    small = [found.submit(Turn(quick.run, None, n), False) for n in range(3)]
    assert [future.result(PATIENCE) for future in small] == ["0!", "1!", "2!"]
    assert not large.done()
    recorder.gate.set()
    assert large.result(PATIENCE) == "held!"


def test_a_gpu_takes_small_and_large_in_turn(lanes, recorder):
    found = lanes(device="cuda:0")
    hold(found, recorder)
    for name in ("L1", "L2"):
        found.submit(Turn(recorder.run, None, name), True)
    futures = [found.submit(Turn(recorder.run, None, name), False) for name in ("s1", "s2", "s3")]
    recorder.gate.set()
    futures[-1].result(PATIENCE)
    order = [items[0] for items in recorder.batches]
    assert order == ["held", "L1", "s1", "L2", "s2", "s3"]


def test_a_cancelled_turn_leaves_the_queue_and_never_runs(lanes, recorder):
    found = lanes()
    hold(found, recorder)
    gone = found.submit(Turn(recorder.run, None, "gone"), False)
    last = found.submit(Turn(recorder.run, None, "last"), False)
    assert found.waiting == 2
    assert gone.cancel()
    assert found.waiting == 1
    recorder.gate.set()
    assert last.result(PATIENCE) == "last!"
    assert ["gone"] not in recorder.batches


def test_closing_finishes_what_is_queued(recorder):
    found = Lanes([SimpleNamespace(device="cpu")], 1, 0)  # type: ignore[list-item]
    futures = [found.submit(Turn(recorder.run, None, n), False) for n in range(3)]
    found.close()
    assert [future.result(0) for future in futures] == ["0!", "1!", "2!"]
    with pytest.raises(RuntimeError, match="closed"):
        found.submit(Turn(recorder.run, None, "late"), False)
