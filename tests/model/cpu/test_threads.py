"""One codec in several threads, and in a forked process, gives what it gives alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from auravae_cli.model.codec import load_codec
from auravae_cli.model.cpu import native
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.network.torch_threads import crew, torch_threads

SIZES = ((16, 24), (32, 16), (8, 8), (24, 40))


@pytest.fixture(params=["native", "plain"])
def small(request, monkeypatch):
    """`small` on the CPU, by our own kernels and without them."""
    if request.param == "plain":
        monkeypatch.setattr(native, "kernels", lambda: None)
    elif native.kernels() is None:
        pytest.skip("no C compiler here")
    return load_codec("small", device="cpu")


def pictures():
    generator = np.random.default_rng(0)
    return [generator.uniform(-1, 1, (1, 3, *size)).astype(np.float32) for size in SIZES]


def both_ways(codec, images):
    latents = codec.encode(images)
    return latents, codec.decode(latents)


def test_pictures_of_several_sizes_at_once(small):
    alone = [both_ways(small, images) for images in pictures()]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, expected in zip(
                pool.map(partial(both_ways, small), pictures()), alone, strict=True
            ):
                assert all(map(np.array_equal, found, expected))


def test_runs_side_by_side_share_no_memory(small, monkeypatch):
    """Not even the memory that lies ready: whoever takes of it first must not give it to another."""
    together, used = threading.Barrier(2, timeout=30), []
    genuine = Streamer.run

    def watched(streamer, *arguments):
        used.append(streamer._buffers)
        together.wait()
        return genuine(streamer, *arguments)

    monkeypatch.setattr(Streamer, "run", watched)
    images = pictures()[0]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            list(pool.map(small.encode, [images, images]))
    assert used[0] is not used[1] and used[2] is not used[3]
    assert used[2] in used[:2] or used[3] in used[:2]  # and what is left lies ready


def test_torch_has_its_threads_back_after_runs_that_overlap():
    """Those that end first must not set the number under the others, nor keep it at one."""
    before, steps = torch.get_num_threads(), [threading.Event() for _ in range(3)]
    torch.set_num_threads(3)
    found = []

    def late():
        with crew():
            found.append((torch_threads(), torch.get_num_threads()))
            steps[0].set()
            steps[1].wait(30)
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=late)
    try:
        with crew():
            thread.start()
            steps[0].wait(30)
        assert torch_threads() == 3
        steps[1].set()
        thread.join()
        assert found == [(3, 1), 1, 3]
        assert torch_threads() == 3
        with crew():
            assert torch_threads() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


AFTER_A_FORK = """
import os, sys
import numpy as np
import torch
from auravae_cli.model.codec import load_codec
torch.set_num_threads(2)
codec = load_codec("small", device="cpu")
images = np.random.default_rng(0).uniform(-1, 1, (1, 3, 96, 64)).astype(np.float32)
latents = codec.encode(images)
pictures = codec.decode(latents)
child = os.fork()
same = np.array_equal(codec.encode(images), latents)
same &= np.array_equal(codec.decode(latents), pictures)
if not child:
    os._exit(0 if same else 1)
sys.exit(0 if same and os.waitpid(child, 0)[1] == 0 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_after_a_fork_both_processes_go_on():
    command = [sys.executable, "-W", "ignore", "-c", AFTER_A_FORK]
    subprocess.run(command, check=True, timeout=120)
