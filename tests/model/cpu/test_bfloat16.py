"""The CPU's kernels for products of bfloat16: their results, their bits, and what happens without them."""

from __future__ import annotations

import ctypes
import dataclasses
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from auravae_cli.forecast.run_setting import find_setting
from auravae_cli.model.checkpoints.ties import Tie
from auravae_cli.model.codec import load_codec
from auravae_cli.model.cpu import bfloat16, compiled, native, native_half
from auravae_cli.model.cpu.lazy_maps import Activated
from auravae_cli.model.cpu.native import NATIVE, PLAIN
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.network.layers import conv3x3
from auravae_cli.model.placement import Placement, kernels_of
from auravae_cli.model.planning.layer_costs import POINTS, Arithmetic, layers, products_workspace
from auravae_cli.model.planning.strip_plan import Search
from tests.model.cpu.test_native import (
    affine,
    error,
    normed,
    prepared as prepared_for,
    stored,
    strips_of,
)
from tests.model.cpu.test_strip_runner import pictures

needed = pytest.mark.skipif(bfloat16.kernels() is None, reason="no AVX-512 BF16 here")


@pytest.fixture(scope="module", autouse=True, params=["as here", "tiles"])
def products(request):
    """The kernels as this processor has them, and with the tiles of AMX, emulated."""
    if request.param == "as here":
        yield bfloat16.kernels()
        return
    if bfloat16.kernels() is None:
        pytest.skip("no AVX-512 BF16 here")
    found = bfloat16.Products(compiled.library(bfloat16.SOURCE, "-DEMULATED_TILES"))
    assert bfloat16.are_right(found) and found.pairs_at_once > 1
    with mock.patch.object(bfloat16, "kernels", lambda: found):
        yield found


ERROR, MOST = 4e-3, 2e-2  # of the result's size, and of its largest number: bfloat16 has 8 bits


def tied(conv, corner=False):
    """The same with weights that the flips fix."""
    conv.weight.data = Tie(corner=corner).project(conv.weight.data)
    conv.bias.data = Tie().project(conv.bias.data)
    return conv


prepared = partial(prepared_for, products=True)


def assert_close(found, expected):
    assert error(found, expected) < ERROR
    assert (found - expected).abs().max() < MOST * expected.abs().max()


sizes = st.integers(1, 40)
cuts = st.lists(st.integers(1, 60), max_size=3)
channels = st.sampled_from([32, 64, 96])


@needed
@settings(max_examples=40, deadline=None)
@given(channels, channels, sizes, sizes, cuts, st.booleans(), st.booleans())
def test_a_convolution_is_what_it_is_by_definition(a, b, height, width, cuts, activated, summed):
    """With a norm, SiLU and a residual or without, wherever it is cut, two pictures at a time."""
    torch.manual_seed(a * b + height)
    conv, x = tied(conv3x3(a, b)), torch.randn(2, a, height, width)
    norm, shape = affine(a, 2), (2, b, height, width)
    more = {"residual": torch.randn(shape)} if summed else {}
    with torch.inference_mode():
        source = Activated(stored(x), norm) if activated else stored(x)
        found = strips_of(prepared(conv), "same", source, shape, cuts, **more)
        exact = F.silu(normed(x, norm)) if activated else x.double()
        expected = F.conv2d(exact, conv.weight.double(), conv.bias.double(), padding=1)
        if summed:
            expected += more["residual"]
    assert_close(found, expected)


@needed
@settings(max_examples=25, deadline=None)
@given(channels, channels, sizes, sizes, cuts)
def test_steps_up_and_down_and_a_shortcut(a, b, height, width, cuts):
    torch.manual_seed(a * b + height)
    x, even = torch.randn(1, a, height, width), torch.randn(1, a, 2 * height, 2 * width)
    doubled = F.interpolate(x.double(), scale_factor=2.0, mode="nearest")
    for name, conv, given_x, exact, padding in (
        ("doubled", tied(conv3x3(a, b)), x, doubled, 1),
        ("halved", tied(nn.Conv2d(a, b, 3, stride=2), True), even, F.pad(even, (0, 1, 0, 1)), 0),
        ("mixed", tied(nn.Conv2d(a, b, 1)), x, x, 0),
    ):
        with torch.inference_mode():
            weight, bias = conv.weight.double(), conv.bias.double()
            expected = F.conv2d(exact.double(), weight, bias, conv.stride, padding)
            shape = tuple(expected.shape)
            assert_close(strips_of(prepared(conv), name, stored(given_x), shape, cuts), expected)


@needed
@pytest.mark.parametrize("width", [544, 545, 1100])
def test_rows_longer_than_what_is_computed_at_once(width):
    torch.manual_seed(0)
    conv, x, shape = tied(conv3x3(32, 32)), torch.randn(1, 32, 7, width), (1, 32, 7, width)
    with torch.inference_mode():
        expected = conv.double()(x.double())
        assert_close(strips_of(prepared(conv.float()), "same", stored(x), shape, [3]), expected)


@needed
def test_no_strips_change_a_bit():
    torch.manual_seed(0)
    conv, x, norm = tied(conv3x3(64, 32)), torch.randn(1, 64, 23, 44), affine(64)
    with torch.inference_mode():
        whole, parts = (
            strips_of(prepared(conv), "same", Activated(stored(x), norm), (1, 32, 23, 44), cuts)
            for cuts in ([], [1, 2, 9])
        )
    assert torch.equal(whole, parts)


@needed
def test_the_residual_may_be_what_is_written_over():
    torch.manual_seed(0)
    conv, x, y = tied(conv3x3(32, 32)), torch.randn(1, 32, 12, 20), torch.randn(1, 32, 12, 20)
    with torch.inference_mode():
        expected = y + conv(x)
        prepared(conv).same(y.numpy(), stored(x), 0, residual=y.numpy())
    assert_close(y, expected)


@needed
def test_large_and_missing_numbers_stay_what_they_are():
    conv, norm = tied(nn.Conv2d(32, 32, 1)), affine(32)
    for number, is_finite in ((1e30, True), (-1e30, True), (float("nan"), False)):
        x = Activated(stored(torch.full((1, 32, 1, 1), number)), norm)
        out = strips_of(prepared(conv), "mixed", x, (1, 32, 1, 1), [])
        assert bool(out.isfinite().all()) == is_finite


@needed
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (6, 5), (13, 44), (30, 1100)])
@pytest.mark.parametrize("a", [32, 96, 256])
def test_no_more_memory_is_asked_for_than_is_planned(rows, width, a, monkeypatch):
    asked = []

    def watched(function, job):
        job.memory_size = 0
        asked.append(function(job))

    monkeypatch.setattr(native_half, "_call", watched)
    x, wide = torch.empty(1, a, rows, width), torch.empty(1, a, 2 * rows, 2 * width)
    for conv, name, source, points in (
        (conv3x3(a, 64), "same", x, POINTS),
        (nn.Conv2d(a, 64, 1), "mixed", x, 1),
        (nn.Conv2d(a, 64, 3, stride=2), "halved", wide, 9),
    ):
        out = np.empty((1, 64, rows, width), np.float32)
        getattr(prepared(tied(conv)), name)(out, stored(source), 0)
        planned = products_workspace(a, 64, width, points)
        assert 0 < 4 * asked[-1] <= planned <= 4 * asked[-1] + (1 << 12)


# Networks


@pytest.fixture(scope="module")
def multiplied():
    """The network of `small`, with products of bfloat16."""
    return load_codec("small", device="cpu", dtype="bfloat16").autoencoder


@needed
def test_a_network_errs_by_a_few_thousandths(multiplied):
    exact = load_codec("small", device="cpu", dtype="float32").autoencoder
    assert (multiplied.engine, multiplied.has_products) == (NATIVE, True)
    x = pictures(72, 40)
    latent = exact.encode(x)
    for found, expected in (
        (multiplied.encode(x), latent),
        (multiplied.decode(latent), exact.decode(latent)),
    ):
        assert 1e-4 < error(found, expected) < 1e-2


@needed
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_neither_memory_nor_strips_nor_threads_change_a_bit(multiplied, part):
    height, width, found = 72, 40, []
    x = pictures(height, width)
    chain = tuple(layers(multiplied.architecture, part))
    x = (multiplied.encode(x) if part == "decoder" else x).numpy()
    for threads in (1, 3):
        how = Arithmetic(threads=threads, native=True, products=True)
        search = Search(chain, 1, height, width, how)
        tight = search._greedy(int(1.5 * search.least()), 0.35).plan
        for plan in (search.everything_kept(), tight):
            found.append(Streamer(plan, multiplied.parts[part]).run(chain, x))
    assert all(np.array_equal(result, found[0]) for result in found)


@needed
def test_a_plan_without_torch_is_that_of_the_run(multiplied):
    predicted = find_setting("small", ("encoder",), "cpu", "bfloat16", None)
    threads = predicted.arithmetic.threads
    assert predicted.where == Placement("cpu", "bfloat16", NATIVE)
    expected = dataclasses.replace(multiplied.arithmetic(), threads=threads)
    assert predicted.arithmetic == dataclasses.replace(expected, winograd=False)


def test_weights_that_are_not_tied_are_left_to_torch(codec, tiny_path):
    found = load_codec(str(tiny_path), device="cpu", dtype="bfloat16")
    assert (found.engine, found.compute_dtype) == (PLAIN, "bfloat16")
    assert {x.dtype for x in found.autoencoder.parts["decoder"].parameters()} == {torch.bfloat16}


def test_other_processors(monkeypatch, tmp_path):
    """Their library says that there is nothing in it; networks run as torch has them."""
    monkeypatch.setattr(compiled, "_TUNED", ((),))
    path = compiled._build([compiled._compiler()], bfloat16.SOURCE, tmp_path, "a")
    found = bfloat16.Products(ctypes.CDLL(str(path)))
    assert not found.channels_out and not bfloat16.are_right(found)
    monkeypatch.setattr(bfloat16, "kernels", lambda: None)
    assert load_codec("small", device="cpu", dtype="bfloat16").engine == PLAIN


@needed
def test_kernels_that_are_wrong_are_not_used(tmp_path, monkeypatch):
    wrong = tmp_path / "bfloat16.c"
    wrong.write_text(bfloat16.SOURCE.read_text().replace("_mm512_sub_ps(right, left)", "left"))
    found = native.find(wrong, bfloat16.Products, bfloat16.are_right)
    assert found == "those that were built give wrong numbers"


@needed
def test_tiles_that_are_wrong_are_not_used(tmp_path):
    wrong = tmp_path / "bfloat16.c"
    wrong.write_text(bfloat16.SOURCE.read_text().replace("MULTIPLY(3, 5, 7)", "MULTIPLY(3, 5, 6)"))
    found = bfloat16.Products(compiled.library(wrong, "-DEMULATED_TILES"))
    assert found.use_tiles(True) and bfloat16.are_right(found)
    assert found.pairs_at_once == 1


@needed
def test_stores_tell_tiles_apart(products):
    where = Placement("cpu", "bfloat16", NATIVE)
    assert ("tiles" in kernels_of(where)) == (products.pairs_at_once > 1)
    assert "tiles" not in kernels_of(Placement("cpu", "float32", NATIVE))
