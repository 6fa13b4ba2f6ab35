"""Memory: attention that does not grow with the square of the picture, and pictures too large."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from auravae_cli.errors import ComputeError
from auravae_cli.machine import memory
from auravae_cli.model.codec import load_codec
from auravae_cli.model.cpu.lazy_maps import StoredMap
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.network.layers import AttentionBlock
from auravae_cli.model.network.torch_half import TorchHalf
from auravae_cli.model.planning import run_plan
from auravae_cli.model.planning.strip_plan import NO_LIMIT, Pass, StripPlan
from auravae_cli.model.spec.registry import find_model
from auravae_cli.model.torch_network import TorchNetwork
from tests.model.modules import modules_of

PHOTO = np.zeros((16, 24, 3), np.uint8)


def test_attention_takes_the_path_of_bounded_memory():
    """Where the inputs do not suit it, torch falls back in silence; here it may not."""
    with torch.inference_mode(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        block, x = AttentionBlock(128), torch.randn(2, 128, 4, 6)
        half = TorchHalf(nn.ModuleDict({"attn_1": block}))
        run = Streamer(StripPlan((Pass(1, 1), Pass(2, 1)), NO_LIMIT, 0, 0, 1), half)
        run._x = StoredMap(x, half, x.flatten())
        run._attention("attn_1")
        torch.testing.assert_close(run._x.rows(0, 4), block(x))


def test_a_picture_that_does_not_fit_is_refused_before_it_is_tried(monkeypatch):
    codec = load_codec("small", device="cpu")
    latent = codec.encode_image(PHOTO)
    monkeypatch.setattr(run_plan, "free_memory", lambda: 100_000)
    for run in (lambda: codec.encode_image(PHOTO), lambda: codec.decode_latent(latent)):
        with pytest.raises(ComputeError, match=r"not enough memory.*--resize"):
            run()


def test_what_fits_alone_runs_in_parts(monkeypatch):
    codec = load_codec("small", device="cpu")
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, 16, 16)).astype(np.float32)
    whole = codec.encode(images)
    one = codec.autoencoder.plan("encoder", 1, 16, 16).memory
    assert codec.autoencoder.plan("encoder", 3, 16, 16).memory > one
    codec.autoencoder._buffers.clear()
    monkeypatch.setattr(run_plan, "free_memory", lambda: int(one / run_plan.SHARE_OF_FREE) + 1)
    np.testing.assert_allclose(codec.encode(images), whole, atol=1e-4)


@pytest.mark.parametrize("free", [None, 1 << 50])
def test_unknown_or_ample_memory_is_no_reason_to_refuse(monkeypatch, free):
    monkeypatch.setattr(run_plan, "free_memory", lambda: free)
    assert load_codec("small", device="cpu").encode_image(PHOTO).records


def test_free_memory_is_the_least_that_machine_and_container_give(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   500 kB\n")
    assert memory.free_memory() == 500 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() == 500 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.free_memory() == 4000


@pytest.mark.parametrize(
    ("stat", "free"),
    [
        ("anon 1500\nactive_file 300\ninactive_file 2200\n", 3200),
        ("inactive_file 9000\n", 5000),
        ("inactive_file\n", 1000),
        ("anon 1500\n", 1000),
    ],
)
def test_files_that_were_read_leave_a_container_its_memory(monkeypatch, tmp_path, stat, free):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    for name, content in (("max", "5000\n"), ("current", "4000\n"), ("stat", stat)):
        (tmp_path / f"memory.{name}").write_text(content)
    assert memory.free_memory() == free


def test_what_lies_ready_is_no_more_than_the_last_size_takes():
    """Not what all sizes that came by have left: over mixed ones that grew without end."""
    network = load_codec("small", device="cpu").autoencoder
    for size in ((160, 160), (8, 8), (64, 96), (16, 120), (160, 160), (24, 24)):
        latents = network.encode(np.zeros((1, 3, *size), np.float32))
        plan = network.plan("encoder", 1, *size)
        assert 0 < network._buffers.nbytes <= plan.strips.peak < plan.memory
        network.decode(latents)
        plan = network.plan("decoder", 1, *size)
        assert 0 < network._buffers.nbytes <= plan.strips.peak < plan.memory


IN_A_PROCESS = """
import ctypes
import json
import sys

import numpy as np
import torch
from auravae_cli.model.codec import load_codec
from auravae_cli.machine.meter import Meter
torch.set_num_threads(2)
part, budget = sys.argv[1], int(sys.argv[2])
codec = load_codec("small", parts=(part + "r",), device="cpu", memory=budget)
def run(side):
    shape = (1, 3, side, side) if part == "encode" else (1, 16, side // 8, side // 8)
    getattr(codec, part)(np.zeros(shape, np.float32))
run(16)
if hasattr(ctypes.CDLL(None), "malloc_trim"):
    ctypes.CDLL(None).malloc_trim(0)  # what loading freed would be used again, and not be counted
with Meter(interval=0.001) as meter:
    run(256)
print(json.dumps([codec.autoencoder.plan(part + "r", 1, 256, 256).memory, meter.memory]))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is measured on Linux alone"
)
@pytest.mark.parametrize(("part", "megabytes"), [("encode", 64), ("decode", 64), ("decode", 4000)])
def test_a_budget_is_kept_to(part, megabytes):
    """What the process takes above the weights; before plans were made, up to twice the budget."""
    budget = megabytes << 20
    result = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, part, str(budget)],
        capture_output=True,
        text=True,
        check=True,
    )
    planned, measured = json.loads(result.stdout)
    assert planned <= budget
    assert measured <= 1.05 * budget and 0.6 * planned < measured < 1.1 * planned


UNDER_A_LIMIT = """
import json, resource, sys
import numpy as np
from auravae_cli.model.codec import load_codec
part, room = sys.argv[1], int(sys.argv[2])
codec = load_codec("small", device="cpu")
def run(side):
    shape = (1, 3, side, side) if part == "encode" else (1, 16, side // 8, side // 8)
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    return getattr(codec, part)(values)
run(32)
_, hard = resource.getrlimit(resource.RLIMIT_AS)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (room << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
tight = run(256)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(json.dumps([codec.autoencoder.plan(part + "r", 1, 256, 256).memory, float(abs(tight - run(256)).max())]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize(("part", "megabytes"), [("encode", 24), ("decode", 48)])
def test_a_limit_that_no_number_tells_is_kept_to_by_shorter_strips(part, megabytes):
    """As `ulimit -v` sets one: the plan takes what the machine has, and that is not to be had."""
    result = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, part, str(megabytes)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.returncode, result.stderr
    planned, error = json.loads(result.stdout)
    assert planned > 1.5 * (megabytes << 20)
    assert error < 1e-4


class Full:
    """A GPU's runner, where others have taken the memory."""

    def __init__(self):
        self.calls = 0

    def __call__(self, items):
        self.calls += 1
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def crowded():
    """A network that runs plainly, as on a GPU, and finds no room to do so."""
    architecture, cpu = find_model("small").architecture, torch.device("cpu")
    prepared = {"encoder": Full(), "decoder": Full()}
    return TorchNetwork(modules_of("small"), architecture, cpu, torch.float32, None, prepared)


@pytest.mark.parametrize(("part", "shape"), [("encode", (2, 3, 64, 48)), ("decode", (2, 16, 8, 6))])
def test_where_others_took_the_memory_pictures_run_in_strips(crowded, part, shape):
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    whole = getattr(load_codec("small", device="cpu", dtype="float32").autoencoder, part)(values)
    np.testing.assert_allclose(getattr(crowded, part)(values), whole, atol=1e-4)
    assert crowded.prepared[part + "r"].calls == 3  # both, then each by itself


def test_budgets_shrink_until_not_even_strips_fit(crowded, monkeypatch):
    budgets = []

    def fail(streamer, chain, items):
        budgets.append(streamer._room)
        raise MemoryError

    monkeypatch.setattr(Streamer, "run", fail)
    with pytest.raises(ComputeError, match=r"not enough memory.*32 x 24"):
        crowded.decode(np.zeros((1, 16, 32, 24), np.float32))
    assert len(budgets) > 1
    assert budgets == sorted(set(budgets), reverse=True)
