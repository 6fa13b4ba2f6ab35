"""Feature maps of more than 2^31 numbers, where 32-bit indices end.

In strips no operation sees as many; the maps that they are written to may have more. That is checked
by arithmetic for any size, and on real memory (14 GiB and some minutes) with

    AURAVAE_LARGE=1 python -m pytest tests/model/planning/test_large.py
"""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from auravae_cli.model.cpu.lazy_layers import Convolved, Doubled
from auravae_cli.model.cpu.lazy_maps import Activated, StoredMap, keep
from auravae_cli.model.network.torch_half import TorchHalf
from auravae_cli.model.network.torch_threads import crew
from auravae_cli.model.planning.layer_costs import Arithmetic, layers
from auravae_cli.model.planning.strip_plan import Pass, Planner, cuts
from auravae_cli.model.spec.config import Architecture

LIMIT = 1 << 31
SMALL, FULL = Architecture(32, (3, 2, 4, 8), 1, 16), Architecture(256, (1, 2, 4, 4), 2, 16)
large = pytest.mark.skipif(
    os.environ.get("AURAVAE_LARGE") != "1", reason="takes 14 GiB: set AURAVAE_LARGE=1"
)


@pytest.mark.parametrize("architecture", [SMALL, FULL], ids=["small", "full"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(("height", "width"), [(32_768, 32_768), (64, 65_528), (65_528, 64)])
@pytest.mark.parametrize("room", [0, 1 << 62])
def test_no_strip_has_as_many(architecture, part, height, width, room, monkeypatch):
    """With all maps kept, and with none, in memory without end.

    What is made beside a strip has at most twice its rows, and the most channels on the way to it.
    """
    most, genuine = [], Planner._strips

    def watched(self, x, *arguments):
        chosen, rows = genuine(self, x, *arguments)
        most.append(2 * rows * x.row_nbytes // x.arithmetic.itemsize)
        return chosen, rows

    monkeypatch.setattr(Planner, "_strips", watched)
    planner = Planner(Arithmetic(threads=2), room=room)
    planner.run(tuple(layers(architecture, part)), 1, height, width)
    assert len(most) > 10 and max(most) < LIMIT


@pytest.fixture
def picture():
    """[1, 32, 4104, 4104] of a quarter of what goes over the limit."""
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, 32, 1, 4104, generator=generator)
    column = torch.randn(1, 32, 4104, 1, generator=generator)
    return row + column + 3


@large
def test_strips_over_a_map_of_as_many(picture):
    """Doubled, with statistics; then a norm, SiLU and a convolution by NNPACK over it, to the end."""
    torch.manual_seed(0)
    up, norm, conv = (
        nn.Conv2d(32, 32, 3, padding=1),
        nn.GroupNorm(32, 32, 1e-6),
        nn.Conv2d(32, 16, 3, padding=1),
    )
    height = 2 * picture.shape[2]
    how = Pass(200, 2)
    half = TorchHalf(nn.ModuleDict({"up": up, "norm": norm, "conv": conv}))
    with torch.inference_mode(), crew():
        doubled = keep(Doubled(StoredMap(picture, half), half.convolution("up")), how)
        assert doubled.values.numel() > LIMIT and doubled.statistics is not None
        expected = up(F.interpolate(picture[:, :, -20:], scale_factor=2.0))[:, :, -32:]
        torch.testing.assert_close(doubled.values[:, :, -32:], expected, atol=1e-4, rtol=0)
        for channel in (0, 31):  # the first and the last of memory
            plane = doubled.values[0, channel]
            total = sum(plane[a:b].double().sum() for a, b in pairwise(cuts(height, 50)))
            mean = total / plane.numel()
            squares = sum(
                (plane[a:b].double() - mean).square().sum() for a, b in pairwise(cuts(height, 50))
            )
            assert abs(doubled.statistics.mean[0, channel] - mean) < 1e-5
            assert abs(doubled.statistics.variance[0, channel] - squares / plane.numel()) < 1e-4
        affine = half.norm("norm", doubled.statistics)
        end = doubled.values[:, :, -40:]
        activated = Activated(doubled, affine)
        result = keep(Convolved(activated, half.convolution("conv")), how, is_measured=False)
        expected = conv(F.silu(affine(end)))[:, :, -32:]
        torch.testing.assert_close(result.values[:, :, -32:], expected, atol=1e-3, rtol=0)


@large
@pytest.mark.parametrize("operation", ["silu", "interpolate", "group_norm"])
def test_operations_of_the_plain_run(operation):
    """On bfloat16, of which as many fit; the last row of the last channel lies beyond the limit.

    Not convolutions: torch's one for maps as large runs in one thread, for more than ten minutes.
    """
    with torch.inference_mode():
        small = torch.randn(1, 32, 4104, 4104).bfloat16()
        if operation == "interpolate":
            y = F.interpolate(small, scale_factor=2.0)
            assert y.numel() > LIMIT
            assert torch.equal(y[:, :, -1, ::2], small[:, :, -1])
            return
        x = small.repeat(1, 1, 2, 2)
        assert x.numel() > LIMIT
        if operation == "silu":
            assert torch.equal(F.silu(x, inplace=True)[0, -1, -1, :4104], F.silu(small[0, -1, -1]))
            return
        del x
        expected = F.group_norm(small.float(), 32, eps=1e-6)[0, -1, -1]
        found = F.group_norm(small.repeat(1, 1, 2, 2), 32, eps=1e-6)[0, -1, -1, :4104]
        torch.testing.assert_close(found.float(), expected, atol=3e-2, rtol=0)
