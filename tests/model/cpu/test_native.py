"""The CPU's kernels in C: their results, the memory they ask for, and what happens without them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from auravae_cli.model.cpu import compiled, native, native_convolutions
from auravae_cli.model.cpu.block_norms import Affine, BlockStatistics, Statistics
from auravae_cli.model.cpu.lazy_maps import Activated, StoredMap, keep
from auravae_cli.model.cpu.native import NATIVE, PLAIN
from auravae_cli.model.engine import engine_for
from auravae_cli.model.network.layers import conv3x3
from auravae_cli.model.planning.layer_costs import POINTS, native_workspace
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS, Pass

pytestmark = pytest.mark.skipif(native.kernels() is None, reason="no C compiler here")

ERROR = 5e-6  # of the result's size


def error(found, expected):
    return float((found - expected).norm() / expected.norm())


def affine(channels, batch=1):
    norm = nn.GroupNorm(1, channels)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    ones = torch.ones(batch, 1, dtype=torch.float64)
    return Affine(norm, Statistics(0.2 * ones, 0.7 * ones))


def strips_of(convolution, name, source, shape, cuts, **more):
    """The whole result, computed in strips that end at ``cuts``."""
    out = torch.full(shape, float("nan"))
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < shape[2]}), shape[2]]
    for start, stop in pairwise(edges):
        extra = {key: value[:, :, start:stop] for key, value in more.items()}
        getattr(convolution, name)(out[:, :, start:stop], source, start, **extra)
    return out


def prepared(conv, out):
    with torch.inference_mode():
        found = native_convolutions.convolution(conv, StoredMap(out))
    assert found is not None
    return found


sizes = st.integers(1, 40)
cuts = st.lists(st.integers(1, 60), max_size=3)
channels = st.integers(1, 20)


@settings(max_examples=60, deadline=None)
@given(channels, channels, sizes, sizes, cuts, st.booleans(), st.booleans())
def test_a_convolution_is_what_it_is_by_definition(a, b, height, width, cuts, normed, summed):
    """With a norm, SiLU and a residual or without, wherever it is cut, two pictures at a time."""
    torch.manual_seed(a * b + height)
    conv, x = conv3x3(a, b), torch.randn(2, a, height, width)
    norm = affine(a, 2)
    shape = (2, b, height, width)
    more = {"residual": torch.randn(shape)} if summed else {}
    with torch.inference_mode():
        source = Activated(StoredMap(x), norm) if normed else StoredMap(x)
        found = strips_of(prepared(conv, torch.empty(shape)), "same", source, shape, cuts, **more)
        exact = x.double()
        if normed:
            exact = F.silu(exact * norm.scale + norm.shift)
        expected = F.conv2d(exact, conv.weight.double(), conv.bias.double(), padding=1)
        if summed:
            expected += more["residual"]
    assert error(found, expected) < ERROR


@settings(max_examples=40, deadline=None)
@given(channels, channels, sizes, sizes, cuts)
def test_steps_up_and_down_and_a_shortcut(a, b, height, width, cuts):
    """Strips of doubled maps may begin at odd rows, too: those that a halo is computed for."""
    torch.manual_seed(a * b + height)
    x, same = torch.randn(1, a, height, width), conv3x3(a, b)
    down, across = nn.Conv2d(a, b, 3, stride=2), nn.Conv2d(a, b, 1)
    even = x.repeat(1, 1, 2, 2)
    doubled = F.interpolate(x.double(), scale_factor=2.0, mode="nearest")
    for name, conv, given_x, exact, padding in (
        ("doubled", same, x, doubled, 1),
        ("halved", down, even, F.pad(even.double(), (0, 1, 0, 1)), 0),
        ("mixed", across, x, x.double(), 0),
    ):
        with torch.inference_mode():
            expected = F.conv2d(
                exact, conv.weight.double(), conv.bias.double(), conv.stride, padding
            )
            shape = tuple(expected.shape)
            kernel = prepared(conv, torch.empty(shape))
            assert error(strips_of(kernel, name, StoredMap(given_x), shape, cuts), expected) < ERROR


@pytest.mark.parametrize("width", [1020, 1025, 1100])
def test_rows_longer_than_what_is_computed_at_once(width):
    torch.manual_seed(0)
    conv, x = conv3x3(3, 9), torch.randn(1, 3, 13, width)
    with torch.inference_mode():
        shape = (1, 9, 13, width)
        found = strips_of(prepared(conv, torch.empty(shape)), "same", StoredMap(x), shape, [6])
        assert error(found, conv.double()(x.double())) < ERROR


def test_the_residual_may_be_what_is_written_over():
    torch.manual_seed(0)
    conv, x, y = conv3x3(8, 8), torch.randn(1, 8, 12, 20), torch.randn(1, 8, 12, 20)
    with torch.inference_mode():
        expected = y + conv(x)
        prepared(conv, y).same(y, StoredMap(x), 0, residual=y)
        assert error(y, expected) < ERROR


def test_strips_of_whole_tiles_give_the_same_bits():
    torch.manual_seed(0)
    conv, x, norm = conv3x3(32, 24), torch.randn(1, 32, 50, 44), affine(32)
    with torch.inference_mode():
        kernel = prepared(conv, torch.empty(1, 24, 50, 44))
        whole, parts = (
            strips_of(kernel, "same", Activated(StoredMap(x), norm), (1, 24, 50, 44), cuts)
            for cuts in ([], [BLOCK_ROWS, 5 * BLOCK_ROWS])
        )
    assert torch.equal(whole, parts)


def test_large_and_missing_numbers_stay_what_they_are():
    """SiLU at the ends of the range, and no number where there was none."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
    conv.weight.data[0, 0, 1, 1] = 1
    norm = nn.GroupNorm(1, 1, eps=0)
    known = Statistics(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    x = torch.tensor([-1e30, -100.0, -88, -20, -1, 0, 1, 20, 88, 100, 1e30]).repeat(1, 1, 1, 1)
    with torch.inference_mode():
        out = torch.empty_like(x)
        kernel = prepared(conv, out)
        for number in x.flatten():
            alone = torch.full((1, 1, 1, 1), float(number))
            kernel.same(out[..., :1], Activated(StoredMap(alone), Affine(norm, known)), 0)
            torch.testing.assert_close(out[..., :1], F.silu(alone), atol=1e-6, rtol=1e-5)
        kernel.same(out, Activated(StoredMap(x * float("nan")), Affine(norm, known)), 0)
    assert out.isnan().all()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_any_order_of_memory(memory):
    torch.manual_seed(0)
    conv, x = conv3x3(6, 7), torch.randn(2, 6, 9, 10).to(memory_format=memory)
    with torch.inference_mode():
        out = torch.empty(2, 7, 9, 10).to(memory_format=memory)
        prepared(conv, out).same(out, StoredMap(x), 0)
        assert error(out, conv(x)) < ERROR


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (6, 5), (13, 44), (100, 3), (30, 1100)])
@pytest.mark.parametrize("a", [1, 3, 32, 96, 256])
def test_no_more_memory_is_asked_for_than_is_planned(rows, width, a, monkeypatch):
    asked, kernels = [], native.kernels()

    def watched(function, job):
        job.memory_size = 0
        asked.append(function(job))

    monkeypatch.setattr(native_convolutions, "_call", watched)
    x, wide = torch.empty(1, a, rows, width), torch.empty(1, a, 2 * rows, 2 * width)
    for conv, name, source, points in (
        (conv3x3(a, 8), "same", x, POINTS),
        (nn.Conv2d(a, 8, 1), "mixed", x, 1),
        (nn.Conv2d(a, 8, 3, stride=2), "halved", wide, 9),
    ):
        with torch.inference_mode():
            getattr(prepared(conv, x), name)(torch.empty(1, 8, rows, width), StoredMap(source), 0)
        planned = native_workspace(a, rows, width, points)
        assert 0 < 4 * asked[-1] <= planned
        if kernels.channels_out == 8:
            assert planned < 2 * 4 * asked[-1] + (1 << 17)


@pytest.mark.parametrize("tuned", [("-mavx2", "-mfma"), ()], ids=["eight lanes", "four lanes"])
def test_other_processors(tuned, tmp_path, monkeypatch):
    """Vectors of 8 and of 4 numbers; this processor's are tested by all else."""
    monkeypatch.setattr(compiled, "_TUNED", (tuned,))
    try:
        path = compiled._build([compiled._compiler()], native.SOURCE, tmp_path, "a")
    except subprocess.CalledProcessError:
        pytest.skip("no such instructions here")
    found = native.Kernels(ctypes.CDLL(str(path)))
    assert native.are_right(found)
    torch.manual_seed(0)
    monkeypatch.setattr(native, "kernels", lambda: found)
    conv, x, norm = conv3x3(32, 20), torch.randn(1, 32, 33, 70), affine(32)
    with torch.inference_mode():
        out, up = torch.empty(1, 20, 33, 70), torch.empty(1, 20, 66, 140)
        kernel = prepared(conv, out)
        kernel.same(out, Activated(StoredMap(x), norm), 0)
        assert error(out, conv(F.silu(norm(x)))) < ERROR
        kernel.doubled(up, StoredMap(x), 0)
        assert error(up, conv(F.interpolate(x, scale_factor=2.0))) < ERROR
        means = measured(x)
        assert error(means, measured(x.double())) < ERROR


def measured(x):
    blocks = BlockStatistics(tuple(x.shape), 4)
    blocks.add(x, 0)
    known = blocks.merged()
    return torch.cat([known.mean, known.variance])


def test_statistics_are_those_of_torch():
    torch.manual_seed(0)
    x = torch.randn(2, 12, 2 * BLOCK_ROWS + 1, 37) + 5
    kept = keep(StoredMap(x), Pass(3, 2), 4)
    variance, mean = torch.var_mean(x.double().unflatten(1, (4, 3)), (2, 3, 4), correction=0)
    torch.testing.assert_close(kept.statistics.mean, mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(kept.statistics.variance, variance, atol=1e-6, rtol=0)


def test_weights_that_have_changed_are_made_ready_again():
    torch.manual_seed(0)
    conv, x, out = conv3x3(4, 4), torch.randn(1, 4, 8, 8), torch.empty(1, 4, 8, 8)
    for change in (
        lambda: None,
        lambda: conv.weight.data.mul_(2),
        lambda: setattr(conv, "weight", nn.Parameter(torch.randn(4, 4, 3, 3))),
    ):
        change()
        with torch.no_grad():
            conv.weight += 0.01
        prepared(conv, out).same(out, StoredMap(x), 0)
        with torch.inference_mode():
            assert error(out, conv(x)) < ERROR


@pytest.mark.parametrize(
    "make",
    [
        lambda: (conv3x3(8, 8), torch.zeros(1, 8, 8, 8, dtype=torch.bfloat16)),
        lambda: (nn.Conv2d(8, 8, 3, padding=1, bias=False), torch.zeros(1, 8, 8, 8)),
        lambda: (conv3x3(512, 512), torch.zeros(1, 512, 8, 8)),
    ],
    ids=["bfloat16", "no bias", "wide"],
)
def test_others_are_left_to_others(make):
    conv, x = make()
    with torch.inference_mode():
        assert native_convolutions.convolution(conv.to(x.dtype), StoredMap(x)) is None
    assert (
        native_convolutions.convolution(conv3x3(8, 8), StoredMap(torch.zeros(1, 8, 8, 8))) is None
    )  # gradients


def test_they_can_be_turned_off(monkeypatch):
    assert engine_for(torch.device("cpu"), torch.float32) == NATIVE
    assert engine_for(torch.device("cpu"), torch.bfloat16) == PLAIN
    native._found.cache_clear()
    monkeypatch.setenv(native.VARIABLE, "plain")
    try:
        assert engine_for(torch.device("cpu"), torch.float32) == PLAIN
        assert native.trouble() is None
    finally:
        native._found.cache_clear()


def test_no_torch_is_needed_to_know():
    code = "import sys; from auravae_cli.model.cpu import native; native.kernels(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
