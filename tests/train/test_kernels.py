"""The trainer's own kernels against torch in float32."""

import pytest
import torch
from torch.nn import functional as F

from auravae_cli.model.checkpoints.ties import Tie
from auravae_cli.model.cpu import compiled, native
from auravae_cli.train import kernels

ROUNDING = 4e-3  # of bfloat16, relative to all that is compared


@pytest.fixture(params=[1, 2])
def threads(request):
    """With one thread, and with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def distance(a, b):
    """The norm of the difference, relative to that of ``b``."""
    a, b = a.detach().float(), b.detach().float()
    return float((a - b).norm() / b.norm())


def rounded(*shape, seed):
    """Random numbers that bfloat16 holds."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).bfloat16().float().requires_grad_()


@pytest.mark.parametrize(
    ("batch", "channels", "out", "height", "width", "doubled"),
    [
        (2, 32, 96, 16, 16, False),
        (1, 96, 96, 11, 48, False),  # rows in several parts, the last one shorter
        (1, 256, 64, 5, 16, False),  # an odd number of vectors
        (2, 64, 32, 7, 24, True),
        (1, 32, 32, 1, 16, False),
        (1, 32, 32, 48, 32, False),  # sums over several parts
        (5, 32, 32, 16, 16, False),  # sums over two images at once, the last one alone
        (4, 64, 32, 5, 8, False),  # two images a vector
        (6, 32, 64, 3, 4, True),
    ],
)
def test_convolutions_and_their_gradients(
    found, threads, batch, channels, out, height, width, doubled
):
    x = rounded(batch, channels, height, width, seed=0)
    weight = rounded(out // 4, channels, 3, 3, seed=1)
    bias = rounded(out // 4, seed=2)
    scale = 2 if doubled else 1
    residual = rounded(batch, out, scale * height, scale * width, seed=3)
    gradient = rounded(batch, out, scale * height, scale * width, seed=4).detach()

    large = F.interpolate(x, scale_factor=2.0) if doubled else x
    expected = F.conv2d(large, Tie().expand(weight), bias.repeat(4), padding=1) + residual
    halves = [tensor.detach().bfloat16().requires_grad_() for tensor in (x, residual)]
    y = kernels.convolve(found, halves[0], weight, bias, halves[1], doubled)

    assert distance(y, expected) < ROUNDING
    wanted = torch.autograd.grad(expected, (x, weight, bias, residual), gradient)
    given = torch.autograd.grad(y, (halves[0], weight, bias, halves[1]), gradient.bfloat16())
    for name, a, b in zip(("x", "weight", "bias", "residual"), given, wanted, strict=True):
        assert distance(a, b) < ROUNDING, name


@pytest.mark.parametrize(("channels", "height", "width"), [(32, 4, 4), (96, 16, 32), (256, 2, 8)])
def test_norms_and_their_gradients(found, threads, channels, height, width):
    x = rounded(2, channels, height, width, seed=0)
    weight, shift = rounded(channels, seed=1), rounded(channels, seed=2)
    gradient = rounded(2, channels, height, width, seed=3).detach()
    expected = F.silu(F.group_norm(x, 32, weight, shift, 1e-6))
    half = x.detach().bfloat16().requires_grad_()
    y = kernels.normalise(found, half, weight, shift, 32, 1e-6)
    assert distance(y, expected) < ROUNDING
    wanted = torch.autograd.grad(expected, (x, weight, shift), gradient)
    given = torch.autograd.grad(y, (half, weight, shift), gradient.bfloat16())
    for name, a, b in zip(("x", "weight", "shift"), given, wanted, strict=True):
        assert distance(a, b) < ROUNDING, name


def test_extreme_values_stay_finite(found):
    x = (torch.tensor([0.0, 1e30, -1e30, 1e-30]).repeat(2, 32, 4, 4)).bfloat16()
    y = kernels.normalise(found, x, torch.full((32,), 100.0), torch.zeros(32), 32, 1e-6)
    assert y.isfinite().all()


def test_without_a_compiler_there_are_none(monkeypatch):
    def fail(*_):
        raise FileNotFoundError("no C compiler")

    monkeypatch.setattr(compiled, "library", fail)
    kernels.find.cache_clear()
    assert kernels.find() is None
    kernels.find.cache_clear()


def test_the_environment_turns_them_off(monkeypatch):
    monkeypatch.setenv(native.VARIABLE, "plain")
    kernels.find.cache_clear()
    assert kernels.find() is None
    kernels.find.cache_clear()
