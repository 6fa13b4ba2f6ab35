"""The CPU's kernels in C: their results, the memory they ask for, and what happens without them."""

from __future__ import annotations

import ctypes
import subprocess
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from auravae_cli.model.cpu import compiled, native, native_half
from auravae_cli.model.cpu.block_norms import Affine, BlockStatistics, Statistics
from auravae_cli.model.cpu.lazy_maps import Activated, StoredMap, keep
from auravae_cli.model.cpu.native import NATIVE, PLAIN
from auravae_cli.model.engine import engine_for
from auravae_cli.model.network.layers import conv3x3
from auravae_cli.model.network.weights import load_networks
from auravae_cli.model.planning import layer_costs
from auravae_cli.model.planning.layer_costs import POINTS, native_workspace
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS, Pass
from auravae_cli.model.torch_network import TorchNetwork

pytestmark = pytest.mark.skipif(native.kernels() is None, reason="no C compiler here")

ERROR = 5e-6  # of the result's size


def error(found, expected):
    return float((found - expected).norm() / expected.norm())


HALF = native_half.NativeHalf({})


def affine(channels, batch=1):
    weight, bias, ones = (
        torch.randn(channels).numpy(),
        torch.randn(channels).numpy(),
        np.ones((batch, 1)),
    )
    return Affine.of(weight, bias, Statistics(0.2 * ones, 0.7 * ones))


def normed(x, norm):
    """A tensor after a norm, in float64."""
    scale, shift = (torch.from_numpy(each)[:, :, None, None] for each in (norm.scale, norm.shift))
    return x.double() * scale + shift


def stored(x):
    """A tensor as a map."""
    return StoredMap(np.ascontiguousarray(x.numpy()), HALF)


def strips_of(convolution, name, source, shape, cuts, **more):
    """The whole result, computed in strips that end at ``cuts``."""
    out = np.full(shape, np.nan, np.float32)
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < shape[2]}), shape[2]]
    for start, stop in pairwise(edges):
        extra = {key: value[:, :, start:stop].numpy() for key, value in more.items()}
        getattr(convolution, name)(out[:, :, start:stop], source, start, **extra)
    return torch.from_numpy(out)


def prepared(conv, products=False):
    weights, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    return native_half.prepare(weights, bias, conv.stride[0], products)


sizes = st.integers(1, 40)
cuts = st.lists(st.integers(1, 60), max_size=3)
channels = st.integers(1, 20)


@settings(max_examples=60, deadline=None)
@given(channels, channels, sizes, sizes, cuts, st.booleans(), st.booleans())
def test_a_convolution_is_what_it_is_by_definition(a, b, height, width, cuts, activated, summed):
    """With a norm, SiLU and a residual or without, wherever it is cut, two pictures at a time."""
    torch.manual_seed(a * b + height)
    conv, x = conv3x3(a, b), torch.randn(2, a, height, width)
    norm = affine(a, 2)
    shape = (2, b, height, width)
    more = {"residual": torch.randn(shape)} if summed else {}
    with torch.inference_mode():
        source = Activated(stored(x), norm) if activated else stored(x)
        found = strips_of(prepared(conv), "same", source, shape, cuts, **more)
        exact = F.silu(normed(x, norm)) if activated else x.double()
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
            found = strips_of(prepared(conv), name, stored(given_x), shape, cuts)
            assert error(found, expected) < ERROR


@pytest.mark.parametrize("width", [1020, 1025, 1100])
def test_rows_longer_than_what_is_computed_at_once(width):
    torch.manual_seed(0)
    conv, x = conv3x3(3, 9), torch.randn(1, 3, 13, width)
    with torch.inference_mode():
        shape = (1, 9, 13, width)
        found = strips_of(prepared(conv), "same", stored(x), shape, [6])
        assert error(found, conv.double()(x.double())) < ERROR


def test_the_residual_may_be_what_is_written_over():
    torch.manual_seed(0)
    conv, x, y = conv3x3(8, 8), torch.randn(1, 8, 12, 20), torch.randn(1, 8, 12, 20)
    with torch.inference_mode():
        expected = y + conv(x)
        prepared(conv).same(y.numpy(), stored(x), 0, residual=y.numpy())
        assert error(y, expected) < ERROR


def test_strips_of_whole_tiles_give_the_same_bits():
    torch.manual_seed(0)
    conv, x, norm = conv3x3(32, 24), torch.randn(1, 32, 50, 44), affine(32)
    with torch.inference_mode():
        whole, parts = (
            strips_of(prepared(conv), "same", Activated(stored(x), norm), (1, 24, 50, 44), cuts)
            for cuts in ([], [BLOCK_ROWS, 5 * BLOCK_ROWS])
        )
    assert torch.equal(whole, parts)


def test_large_and_missing_numbers_stay_what_they_are():
    """SiLU at the ends of the range, and no number where there was none."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
    conv.weight.data[0, 0, 1, 1] = 1
    norm, kernel = Affine(*np.array([[[[1]]], [[[0]]]], np.float32)[:, 0]), prepared(conv)
    x = torch.tensor([-1e30, -100.0, -88, -20, -1, 0, 1, 20, 88, 100, 1e30]).repeat(1, 1, 1, 1)
    for number in x.flatten():
        alone = torch.full((1, 1, 1, 1), float(number))
        found = strips_of(kernel, "same", Activated(stored(alone), norm), (1, 1, 1, 1), [])
        torch.testing.assert_close(found, F.silu(alone), atol=1e-6, rtol=1e-5)
    source = Activated(stored(x * float("nan")), norm)
    assert strips_of(kernel, "same", source, tuple(x.shape), []).isnan().all()


@pytest.mark.parametrize("name", ["same", "doubled"])
def test_wide_convolutions_make_their_weights_where_they_are_used(name, monkeypatch):
    """Not the five times larger ones that others keep; the last bits may differ."""
    torch.manual_seed(0)
    conv, x, norm = conv3x3(40, 20), torch.randn(1, 40, 19, 50), affine(40)
    times = 2 if name == "doubled" else 1
    shape = (1, 20, 19 * times, 50 * times)
    source = stored(x) if name == "doubled" else Activated(stored(x), norm)
    ready = prepared(conv)
    kept = strips_of(ready, name, source, shape, [])
    monkeypatch.setattr(native_half, "keeps_points", lambda *_: False)
    wide = prepared(conv)
    assert POINTS * wide.weights.size == 9 * ready.weights.size
    assert wide.are_taps and error(strips_of(wide, name, source, shape, [6]), kept) < 1e-6


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (6, 5), (13, 44), (100, 3), (30, 1100)])
@pytest.mark.parametrize("a", [1, 3, 32, 96, 256])
def test_no_more_memory_is_asked_for_than_is_planned(rows, width, a, monkeypatch):
    asked, kernels = [], native.kernels()

    def watched(function, job):
        job.memory_size = 0
        asked.append(function(job))

    monkeypatch.setattr(native_half, "_call", watched)
    monkeypatch.setattr(layer_costs, "NATIVE_WEIGHTS", 4 * POINTS * 8 * 100)
    x, wide = torch.empty(1, a, rows, width), torch.empty(1, a, 2 * rows, 2 * width)
    for conv, name, source, points in (
        (conv3x3(a, 8), "same", x, POINTS),
        (nn.Conv2d(a, 8, 1), "mixed", x, 1),
        (nn.Conv2d(a, 8, 3, stride=2), "halved", wide, 9),
    ):
        out = np.empty((1, 8, rows, width), np.float32)
        getattr(prepared(conv), name)(out, stored(source), 0)
        planned = native_workspace(a, 8, rows, width, points)
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
        kernel, shape = prepared(conv), (1, 20, 33, 70)
        same = strips_of(kernel, "same", Activated(stored(x), norm), shape, [])
        assert error(same, conv(F.silu(normed(x, norm)).float())) < ERROR
        up = strips_of(kernel, "doubled", stored(x), (1, 20, 66, 140), [])
        assert error(up, conv(F.interpolate(x, scale_factor=2.0))) < ERROR
        blocks = BlockStatistics(tuple(x.shape), 4, native_half.NativeHalf({}).measure)
        blocks.add(x.numpy(), 0)
        known, exact = blocks.merged(), x.double().reshape(4, -1)
        assert np.allclose(known.mean[0], exact.mean(1), atol=1e-6)
        assert np.allclose(known.variance[0], exact.var(1, correction=0), rtol=1e-6)


def test_statistics_are_those_of_torch():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 2 * BLOCK_ROWS + 1, 37) + 5
    kept = keep(stored(x), Pass(3, 2))
    variance, mean = torch.var_mean(x.double().flatten(2), 2, correction=0)
    assert np.allclose(kept.statistics.mean, mean, atol=1e-6, rtol=0)
    assert np.allclose(kept.statistics.variance, variance, atol=1e-6, rtol=0)


def test_weights_of_modules_that_have_changed_are_made_ready_again(tiny_path):
    """Modules stay the program's own, as in the adapter for diffusers."""
    cpu = torch.device("cpu")
    modules, architecture = load_networks(tiny_path, ("encoder",), cpu, torch.float32)
    network, module = TorchNetwork(modules, architecture, cpu, torch.float32), modules["encoder"]
    assert network.engine == NATIVE
    torch.manual_seed(0)
    x, conv = torch.rand(1, 3, 32, 32), module.conv_in
    for change in (
        lambda: None,
        lambda: conv.weight.mul_(2),
        lambda: setattr(conv, "weight", nn.Parameter(torch.randn_like(conv.weight))),
    ):
        with torch.no_grad():
            change()
            assert error(network.encode(x), module(x)) < 1e-4
    prepared = network._half("encoder")
    network.encode(x)
    assert network._half("encoder") is prepared


def test_attention_is_what_it_is_by_definition():
    """Over blocks of keys and what is left of one, whichever queries are asked for together."""
    torch.manual_seed(0)
    q, k, v = (2 * torch.randn(64, 1, cells) for cells in (70, 531, 531))
    weights = torch.softmax(q[:, 0].double().T @ k[:, 0].double() / 8, 1)
    found = attended(q, k, v)
    assert error(found[:, 0], v[:, 0].double() @ weights.T) < ERROR
    parts = [attended(q[..., a:b], k, v) for a, b in ((0, 3), (3, 70))]
    assert torch.equal(torch.cat(parts, 2), found)
    large = attended(1e6 * q, k, v)
    assert large.isfinite().all() and large.abs().max() <= v.abs().max() * 1.01
    k[5, 0, 77] = float("nan")
    assert attended(q, k, v).isnan().all()


def attended(q, k, v, kernel=None):
    """Attention of one head."""
    q, k, v = (x.contiguous().numpy() for x in (q, k, v))
    out = np.full_like(q, np.nan)
    (kernel or native.kernels().attention).attend(out, q, k, v)
    return torch.from_numpy(out)


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
