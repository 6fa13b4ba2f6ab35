"""Convolutions as products of matrices, against torch's, with their gradients, in float32."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from auravae_cli.model.network.layers import Downsample
from auravae_cli.train import products

SIZES = [(1, 4, 6), (3, 5, 7)]  # batch, height, width


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).requires_grad_()


def compare(ours, theirs, x, layer):
    """Both results of ``x``, and all gradients of each."""
    results = []
    for run in (ours, theirs):
        y = run(x)
        weights = torch.linspace(-1, 1, y.numel()).view_as(y)
        results.append((y, *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
@pytest.mark.parametrize(
    ("channels", "out", "taps"), [(3, 8, 3), (8, 3, 3), (6, 6, 3), (8, 4, 1), (4, 8, 1)]
)
def test_convolutions(channels, out, taps, batch, height, width):
    conv = nn.Conv2d(channels, out, taps, padding=taps // 2)
    x = draw(batch, channels, height, width)
    compare(lambda x: products.convolve_by_products(conv, x), conv, x, conv)


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_steps_down(batch, height, width):
    step = Downsample(4)
    with torch.no_grad():
        step.conv.weight[..., 2, :] = step.conv.weight[..., :, 2] = 0  # as of a tied kernel
    x = draw(batch, 4, height, width)

    def plain(x):
        return F.conv2d(x, step.conv.weight[..., :2, :2], step.conv.bias, stride=2)

    compare(lambda x: products.halve(step, x), plain, x, step)


def test_a_step_down_is_that_of_the_network():
    step = Downsample(4)
    with torch.no_grad():
        step.conv.weight[..., 2, :] = step.conv.weight[..., :, 2] = 0
    x = draw(2, 4, 6, 8)
    torch.testing.assert_close(products.halve(step, x), step(x))


@pytest.mark.parametrize("bias", [True, False])
def test_tokens(bias):
    conv = nn.Conv2d(8, 12, 1, bias=bias)
    x = draw(2, 8, 3, 5)
    compare(
        lambda x: (
            products.linear(conv, x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (3, 5))
        ),
        conv,
        x,
        conv,
    )
