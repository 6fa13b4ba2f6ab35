"""Padding: least, and moved by the group as the picture is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from auravae_cli.symmetry.action import act_on_base
from auravae_cli.symmetry.geometry import Box, Buckets, Padding, padding_for
from auravae_cli.symmetry.group import GROUP, E, GroupElement, H, V

elements = st.sampled_from(GROUP)
sides = st.integers(0, 9)
paddings = st.builds(Padding, sides, sides, sides, sides)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 64))
def test_padding_gives_the_least_multiples(height: int, width: int, multiple: int) -> None:
    pad = padding_for(height, width, multiple)
    padded = pad.padded(height, width)
    for side, least in zip((height, width), padded, strict=True):
        assert least % multiple == 0
        assert 0 <= least - side < multiple
    assert pad.right - pad.left in (0, 1)
    assert pad.bottom - pad.top in (0, 1)


def test_a_known_padding() -> None:
    assert padding_for(321, 481, 8) == Padding(left=3, right=4, top=3, bottom=4)
    assert padding_for(64, 8, 8) == Padding()
    assert padding_for(321, 481, 8).as_tuple() == (3, 4, 3, 4)
    assert Padding(1, 2, 3, 4).inner(10, 20) == (slice(3, 13), slice(1, 21))
    assert Padding(1, 2, 3, 4).padded(10, 20) == (17, 23)


@given(paddings, elements, elements)
def test_it_is_acted_on_by_the_group(pad: Padding, g: GroupElement, h: GroupElement) -> None:
    assert pad.act(E) == pad
    assert pad.act(g).act(g) == pad
    assert pad.act(g).act(h) == pad.act(h @ g)


def test_a_mirror_exchanges_its_own_sides_alone() -> None:
    assert Padding(1, 2, 3, 4).act(H) == Padding(2, 1, 3, 4)
    assert Padding(1, 2, 3, 4).act(V) == Padding(1, 2, 4, 3)


@given(paddings, elements, st.integers(1, 6), st.integers(1, 6))
def test_cropping_commutes_with_the_group(
    pad: Padding, g: GroupElement, height: int, width: int
) -> None:
    padded = np.arange(np.prod(pad.padded(height, width))).reshape(pad.padded(height, width))
    cropped = padded[pad.inner(height, width)]
    assert cropped.shape == (height, width)
    moved = act_on_base(g, padded)[pad.act(g).inner(height, width)]
    np.testing.assert_array_equal(moved, act_on_base(g, cropped))


@given(st.integers(1, 2100), st.integers(1, 40).map(lambda n: 8 * n))
def test_buckets_never_exceed_the_budget(side: int, step: int) -> None:
    sizes = Buckets(max(side, step), step).sizes
    assert len(set(sizes)) == len(sizes) > 0
    for height, width in sizes:
        assert height * width <= max(side, step) ** 2
        assert height % step == width % step == 0
        assert max(height, width) <= 2 * min(height, width)
        assert (width, height) in sizes
    assert any(height == width for height, width in sizes)


@given(
    st.integers(64, 1100), st.sampled_from([8, 32, 64]), st.integers(1, 3000), st.integers(1, 3000)
)
def test_the_nearest_bucket_is_nearest(side: int, step: int, height: int, width: int) -> None:
    buckets = Buckets(side, step)

    def distance(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] / size[1]) - math.log(height / width))

    found = buckets.nearest(height, width)
    assert distance(found) <= min(map(distance, buckets.sizes)) + 1e-8
    if height != width:
        assert distance(buckets.nearest(width, height)[::-1]) == pytest.approx(distance(found))


@given(st.data(), elements, elements)
def test_boxes_are_acted_on_by_the_group(data: st.DataObject, g: GroupElement, h: GroupElement):
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    left, right = sorted(data.draw(st.integers(0, width)) for _ in range(2))
    top, bottom = sorted(data.draw(st.integers(0, height)) for _ in range(2))
    box = Box(left, top, right, bottom)
    assert box.act(g, height, width).act(h, height, width) == box.act(h @ g, height, width)
    picture = np.arange(height * width).reshape(height, width)
    moved = box.act(g, height, width)
    np.testing.assert_array_equal(
        act_on_base(g, picture)[moved.top : moved.bottom, moved.left : moved.right],
        act_on_base(g, picture[top:bottom, left:right]),
    )
    assert box.moved(3, 4).as_tuple() == (left + 3, top + 4, right + 3, bottom + 4)
