"""The folded step up is the same function, exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from auravae_cli.model.gpu import fused
from auravae_cli.model.gpu.folded_upsample import fold_merged, fold_transposed

SIZES = [(1, 1), (1, 4), (5, 3), (8, 8)]


def pair(size, dtype=torch.float64):
    generator = torch.Generator().manual_seed(size[0])
    x = torch.randn((2, 5, *size), dtype=dtype, generator=generator)
    weight = torch.randn((7, 5, 3, 3), dtype=dtype, generator=generator)
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return x, weight, F.conv2d(doubled, weight, padding=1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_as_a_transposed_convolution(size):
    x, weight, expected = pair(size)
    found = F.conv_transpose2d(x, fold_transposed(weight), stride=2, padding=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_as_a_merged_convolution(size):
    x, weight, expected = pair(size)
    found, _ = fused.interleave(F.conv2d(x, fold_merged(weight), padding=1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fold", [fold_transposed, fold_merged])
def test_no_tap_is_lost(fold):
    """Each tap of the nine is in four outputs, once in each."""
    weight = torch.arange(1.0, 10.0).double().view(1, 1, 3, 3)
    assert fold(weight).sum() == 4 * weight.sum()


@pytest.mark.parametrize("axis", [2, 3])
def test_folding_commutes_with_flips(axis):
    weight = torch.randn(6, 4, 3, 3)
    assert torch.equal(fold_transposed(weight.flip(axis)), fold_transposed(weight).flip(axis))
