"""Every operation between convolutions, in torch and as a Triton kernel, against float64.

Without a GPU the kernels run in Triton's interpreter (see conftest), and so on small features.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from auravae_cli.model.gpu import fused

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
GROUPS = 4  # the interpreter takes its time for each
# Batch, channels, height, width: widths of small, widths that are no power of two, more channels
# than a program takes, one position, a last chunk that is short, one that is nearly empty.
SHAPES = [(2, 64, 5, 7), (1, 96, 11, 3), (2, 64, 1, 1), (1, 192, 3, 22), (1, 32, 13, 10)]
CASES = [(shape, torch.float32) for shape in SHAPES]
CASES += [(shape, dtype) for dtype in (torch.float16, torch.bfloat16) for shape in SHAPES[:2]]


@pytest.fixture(params=["torch", "triton"])
def way(request, monkeypatch):
    """Both ways to run every operation."""
    kernels = None
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton is not installed on this system")
        kernels = fused.triton_kernels()
        assert kernels is not None
    monkeypatch.setattr(fused, "kernels_for", lambda _: kernels)
    return request.param


def features(shape, dtype=torch.float32, offset=0.0, seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + offset
    return values.to(DEVICE, dtype, memory_format=torch.channels_last)


def vector(channels, seed):
    return torch.randn(channels, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def assert_near(found, expected, bound):
    assert found.shape == expected.shape
    assert (found.double() - expected).norm() <= bound * expected.norm()


def moments(x):
    """The mean and the sum of squared differences of each channel, in float64."""
    values = x.double().flatten(2)
    return values.mean(2), values.var(2, correction=0) * values.shape[2]


def merged(found):
    """The chunks of statistics as one, in float64."""
    chunks = found.mean.shape[1]
    counts = torch.full((chunks,), float(found.rows), dtype=torch.float64, device=DEVICE)
    counts[-1] = found.length - found.rows * (chunks - 1)
    counts = counts[:, None]
    mean = (found.mean.double() * counts).sum(1) / found.length
    around = found.mean.double() - mean[:, None]
    return mean, (found.squares.double() + counts * around**2).sum(1)


def assert_statistics(found, x):
    mean, squares = merged(found)
    expected_mean, expected_squares = moments(x)
    assert (mean - expected_mean).abs().max() <= 2e-7 * x.double().abs().max()
    torch.testing.assert_close(squares, expected_squares, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
def test_statistics(way, shape, dtype):
    x = features(shape, dtype, offset=0.5)
    assert_statistics(fused.statistics(x), x)


def test_statistics_of_values_far_from_zero(way):
    """Where the mean of squares less the square of the mean would be all rounding."""
    x = features((1, 32, 12, 16), offset=3000.0)
    mean, squares = merged(fused.statistics(x))
    expected_mean, expected_squares = moments(x)
    assert (mean - expected_mean).abs().max() < 1e-3
    assert_near(squares, expected_squares, 1e-4)
    cancelled = (x**2).mean((2, 3)) - x.mean((2, 3)) ** 2
    assert (cancelled * 192 - expected_squares).norm() > 0.02 * expected_squares.norm()


def test_chunks_depend_on_the_picture_alone():
    assert [fused.chunk_rows(n) for n in (1, 32 * 1024, 32 * 1024 + 1)] == [32, 32, 64]
    assert fused.chunk_rows(8192**2) == 8192**2 // 1024


def test_a_batch_changes_no_bit(way):
    x = features((3, 64, 9, 9))
    one = torch.ones(64, device=DEVICE)
    together = fused.affine(fused.statistics(x), one, one, None, GROUPS, 1e-6)
    for i in range(3):
        alone = fused.affine(fused.statistics(x[i : i + 1]), one, one, None, GROUPS, 1e-6)
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("silu", [True, False], ids=["silu", "linear"])
def test_norm(way, shape, dtype, silu):
    x, channels = features(shape, dtype, offset=0.5), shape[1]
    weight, bias, pending = (vector(channels, seed) for seed in (1, 2, 3))
    scale, shift = fused.affine(fused.statistics(x), weight, bias, pending, GROUPS, 1e-6)
    assert scale.dtype == shift.dtype == torch.float32
    given = x.double() + pending.double()[:, None, None]
    expected = F.group_norm(given, GROUPS, weight.double(), bias.double(), 1e-6)
    expected = F.silu(expected) if silu else expected
    before = x.clone()
    found = fused.apply(x, scale, shift, silu=silu)
    assert torch.equal(x, before)
    assert found.is_contiguous(memory_format=torch.channels_last) and found.dtype == dtype
    assert_near(found, expected, ROUNDING[dtype])
    assert torch.equal(fused.apply(x, scale, shift, silu=silu, over=True), found)


@pytest.mark.parametrize("channels", [64, 96, 2048])
def test_norm_over_32_groups(way, channels):
    x, one = features((1, channels, 2, 3), offset=0.5), torch.ones(channels, device=DEVICE)
    scale, shift = fused.affine(fused.statistics(x), one, 0 * one, None, 32, 1e-6)
    expected = F.group_norm(x.double(), 32, eps=1e-6)
    assert_near(fused.apply(x, scale, shift, silu=False), expected, 3e-6)


def test_norm_of_many_chunks(way, monkeypatch):
    """More chunks than a program merges at once, the last of one position."""
    monkeypatch.setattr(fused, "CHUNK_ROWS", 2)
    if kernels := fused.kernels_for(torch.ones(1)):
        monkeypatch.setattr(kernels, "MERGED_VALUES", 4 * 16)
    x, one = features((1, 64, 3, 13), offset=0.5), torch.ones(64, device=DEVICE)
    found = fused.statistics(x)
    assert found.mean.shape[1] == 20
    scale, shift = fused.affine(found, one, 0 * one, None, GROUPS, 1e-6)
    expected = F.group_norm(x.double(), GROUPS, eps=1e-6)
    assert_near(fused.apply(x, scale, shift, silu=False), expected, 3e-6)


def test_a_constant_picture_is_normalised_to_its_bias(way):
    x = torch.full((1, 32, 4, 4), 7.25, device=DEVICE).to(memory_format=torch.channels_last)
    weight, bias = vector(32, 1), vector(32, 2)
    scale, shift = fused.affine(fused.statistics(x), weight, bias, None, GROUPS, 1e-6)
    found = fused.apply(x, scale, shift, silu=False)
    torch.testing.assert_close(found, bias[:, None, None].expand_as(found), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "none"])
def test_residual_sum(way, shape, dtype, has_bias):
    changed, x = features(shape, dtype, seed=1), features(shape, dtype, seed=2)
    bias = vector(shape[1], 3) if has_bias else None
    expected = changed.double() + x.double() + (bias.double()[:, None, None] if has_bias else 0)
    found, statistics = fused.add(changed, x, bias)
    assert_near(found, expected, ROUNDING[dtype])
    assert_statistics(statistics, found)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("wants", [True, False], ids=["statistics", "none"])
def test_residual_sum_with_a_border(way, shape, wants):
    changed, x, bias = features(shape, seed=1), features(shape, seed=2), vector(shape[1], 3)
    expected = changed.double() + x.double() + bias.double()[:, None, None]
    found, statistics = fused.add(changed, x, bias, border=True, wants_statistics=wants)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_near(found, F.pad(expected, (0, 1, 0, 1)), 1e-6)
    assert not found[:, :, -1].any() and not found[..., -1].any()
    assert (statistics is not None) == wants
    if statistics is not None:
        assert_statistics(statistics, found[:, :, :-1, :-1])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (1, 9)], ids=str)
@pytest.mark.parametrize("channels", [32, 96, 160])
def test_interleaving(way, size, channels):
    height, width = size
    phases = features((2, 4 * channels, height + 1, width + 1))
    found, statistics = fused.interleave(phases)
    expected = torch.empty(2, channels, 2 * height, 2 * width, device=DEVICE)
    for y in range(2 * height):
        for x in range(2 * width):
            a, b = y % 2, x % 2
            first = (2 * a + b) * channels
            expected[:, :, y, x] = phases[:, first : first + channels, y // 2 + a, x // 2 + b]
    assert torch.equal(found, expected)
    assert_statistics(statistics, found)


def test_interleaving_begins_chunks_anywhere(way, monkeypatch):
    monkeypatch.setattr(fused, "CHUNK_ROWS", 2)
    phases = features((1, 128, 4, 4))
    found, statistics = fused.interleave(phases)
    assert statistics.mean.shape[1] == 18
    assert_statistics(statistics, found)
    assert torch.equal(found[:, :, 1::2, ::2], phases[:, 64:96, 1:, :-1])


@pytest.mark.skipif(DEVICE == "cpu", reason="more than 2**31 values need a GPU with 20 GB")
def test_more_values_than_32_bits_count():
    x = torch.zeros(1, 64, 8200, 4100, device=DEVICE, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    assert x.numel() > 2**31
    end = torch.randn(1, 64, 2, 4100, device=DEVICE).to(x.dtype)
    x[:, :, -2:] = end
    scale, shift = (vector(64, seed)[None] for seed in (1, 2))
    summed, statistics = fused.add(x.clone(memory_format=torch.preserve_format), x, None)
    assert torch.equal(summed[:, :, -2:], 2 * end)
    expected = 2 * end.double().sum((2, 3)) / statistics.length
    torch.testing.assert_close(merged(statistics)[0], expected, rtol=1e-3, atol=1e-9)
    found = fused.apply(x, scale, shift, silu=False, over=True)[:, :, -2:]
    affine = end.double() * scale[..., None, None] + shift[..., None, None]
    assert_near(found, affine, ROUNDING[torch.bfloat16])


def test_without_triton_torch_does_the_work(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "auravae_cli.model.gpu.triton_kernels", raising=False)
    monkeypatch.delattr("auravae_cli.model.gpu.triton_kernels", raising=False)
    fused.triton_kernels.cache_clear()
    try:
        assert fused.triton_kernels() is None
    finally:
        fused.triton_kernels.cache_clear()
