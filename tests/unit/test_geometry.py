"""Padding: least, and moved by the group as the picture is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from auravae_cli.action import act_on_base
from auravae_cli.geometry import Padding, padding_for
from auravae_cli.group import GROUP, E, GroupElement, H, V

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
