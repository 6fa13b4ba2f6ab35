"""Which runs are recorded as CUDA graphs, and that playing them back gives the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch

from auravae_cli.model import engine
from auravae_cli.model.gpu import cuda_graphs
from auravae_cli.model.gpu.cuda_graphs import (
    FIRST_RUNS,
    MOST_GRAPHS,
    MOST_POSITIONS,
    Graphs,
    Recorded,
)
from auravae_cli.model.network.autoencoder import Decoder
from auravae_cli.model.spec.config import Architecture

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="CUDA graphs and compiled kernels need a GPU"
)


class Recorder:
    """Stands for `Recorded`, without a GPU: notes what is recorded, and what is played back."""

    def __init__(self, fails=False):
        self.recorded, self.played, self.pools, self.fails = [], [], [], fails

    def __call__(self, function, x, pool):
        self.recorded.append(tuple(x.shape))
        self.pools.append(pool)
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return Play(self, function, tuple(x.shape))


class Play:
    pool = "the pool"

    def __init__(self, recorder, function, shape):
        self.recorder, self.function, self.shape = recorder, function, shape

    def __call__(self, x):
        assert tuple(x.shape) == self.shape
        self.recorder.played.append(self.shape)
        return self.function(x)


def build(recorder, monkeypatch, function=lambda x: 2 * x, area=1):
    monkeypatch.setattr(cuda_graphs.Graphs, "suits", lambda self, x: x.shape[-1] < 100)
    return Graphs(function, area, recorder)


def picture(width=4):
    return torch.randn(1, 3, 4, width)


def test_a_shape_that_comes_again_is_recorded(monkeypatch):
    recorder = Recorder()
    run = build(recorder, monkeypatch)
    for number in range(FIRST_RUNS + 3):
        x = picture()
        assert torch.equal(run(x), 2 * x)
        assert len(recorder.played) == max(0, number + 1 - FIRST_RUNS)
    assert recorder.recorded == [(1, 3, 4, 4)]


def test_large_pictures_are_not(monkeypatch):
    recorder = Recorder()
    run = build(recorder, monkeypatch)
    for _ in range(5):
        run(picture(200))
    assert recorder.recorded == []


def test_the_graphs_used_last_are_kept_and_share_their_memory(monkeypatch):
    recorder = Recorder()
    run = build(recorder, monkeypatch)
    for width in range(1, MOST_GRAPHS + 2):
        for _ in range(FIRST_RUNS + 1):
            run(picture(width))
        run(picture(1))  # stays the last that was used, but one
    assert len(recorder.recorded) == MOST_GRAPHS + 1
    assert recorder.pools == [None] + ["the pool"] * MOST_GRAPHS
    run(picture(1))
    run(picture(2))  # was dropped, and has to come again and again before it is back
    assert recorder.played[-1][-1] == 1
    assert len(recorder.recorded) == MOST_GRAPHS + 1
    for _ in range(FIRST_RUNS):
        run(picture(2))
    assert len(recorder.recorded) == MOST_GRAPHS + 2


def test_what_cannot_be_recorded_runs_without_and_is_not_tried_again(monkeypatch):
    recorder = Recorder(fails=True)
    run = build(recorder, monkeypatch)
    for _ in range(6):
        x = picture()
        assert torch.equal(run(x), 2 * x)
    assert len(recorder.recorded) == 1


def test_graphs_make_way_where_memory_runs_out(monkeypatch):
    """Their memory goes to a picture that needs it; with none left, the error is the caller's."""
    fails = [0]

    def function(x):
        if fails[0] > 0:
            fails[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * x

    recorder = Recorder()
    run = build(recorder, monkeypatch, function)
    for _ in range(FIRST_RUNS + 1):
        run(picture())
    fails[0] = 1
    x = picture(200)
    assert torch.equal(run(x), 2 * x)
    fails[0] = 1
    with pytest.raises(torch.OutOfMemoryError):
        run(x)


def test_graphs_do_not_make_way_while_one_is_played(monkeypatch):
    """In another thread, whose memory it would take."""
    playing, go_on, fails = threading.Event(), threading.Event(), []

    def function(x):
        if x.shape[-1] >= 100 and fails:
            fails.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * x

    run = build(Recorder(), monkeypatch, function)
    for _ in range(FIRST_RUNS + 1):
        run(picture())

    class Slow:
        def __call__(self, x):
            playing.set()
            go_on.wait(30)
            return 2 * x

    run._graphs[picture().shape] = Slow()
    fails.append(True)
    with ThreadPoolExecutor(2) as pool:
        small = pool.submit(run, picture())
        playing.wait(30)
        large = pool.submit(run, picture(200))
        assert wait([large], 0.1).not_done and run._graphs
        go_on.set()
        assert small.result().shape == (1, 3, 4, 4) and large.result().shape == (1, 3, 4, 200)
    assert not run._graphs


def test_on_a_cpu_nothing_is_recorded():
    recorder = Recorder()
    run = Graphs(lambda x: x, 1, recorder)
    for _ in range(5):
        run(picture())
    assert recorder.recorded == []


def test_a_cpu_runs_the_modules_as_they_are_in_bfloat16():
    assert engine.engine_for(torch.device("cpu"), torch.bfloat16) == "plain"


@pytest.mark.parametrize("fault", ["no Triton", "Triton fails", "wrong numbers"])
def test_a_gpu_without_working_kernels_does_too(monkeypatch, fault):
    """The trial, on this processor: whatever Triton raises, and whatever it gives."""

    def broken(*_, **__):
        raise LookupError("Failed to find C compiler. Please specify via CC environment variable.")

    device, dtype = torch.device("cpu"), torch.float32
    engine.kernels_work.cache_clear()
    monkeypatch.setattr(engine.fused, "triton_kernels", object)
    try:
        assert engine.kernels_work(device, dtype)
        engine.kernels_work.cache_clear()
        if fault == "no Triton":
            monkeypatch.setattr(engine.fused, "triton_kernels", lambda: None)
        elif fault == "Triton fails":
            monkeypatch.setattr(engine.fused, "statistics", broken)
        else:
            monkeypatch.setattr(engine.fused, "apply", lambda x, *_, silu: x)
        assert not engine.kernels_work(device, dtype)
    finally:
        engine.kernels_work.cache_clear()


def test_the_environment_can_say_plain(monkeypatch):
    monkeypatch.setattr(engine, "kernels_work", lambda *_: True)
    device = torch.device("cuda")
    assert engine.engine_for(device, torch.bfloat16) == "channels-last"
    monkeypatch.setenv("AURAVAE_KERNELS", "plain")
    assert engine.engine_for(device, torch.bfloat16) == "plain"


@needs_cuda
@torch.inference_mode()
def test_a_recorded_run_gives_the_same():
    torch.manual_seed(0)
    architecture = Architecture(32, (1, 2, 2), 1, 4)
    module = Decoder(architecture).cuda().requires_grad_(False)
    run = engine.prepared_halves({"decoder": module}, torch.bfloat16, 4)["decoder"]
    for _ in range(FIRST_RUNS + 3):
        x = torch.randn(2, 4, 8, 8, device="cuda", dtype=torch.bfloat16)
        torch.testing.assert_close(run(x), run.function(x))
    assert isinstance(next(iter(run._graphs.values())), Recorded)


@needs_cuda
def test_what_is_recorded_is_bounded():
    run = Graphs(lambda x: x, 64)
    side = int((MOST_POSITIONS / 64) ** 0.5)
    assert run.suits(torch.zeros(1, 16, side, side, device="cuda"))
    assert not run.suits(torch.zeros(2, 16, side, side, device="cuda"))
