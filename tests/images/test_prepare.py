"""What is done to a picture before it is encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from auravae_cli.errors import InputImageError
from auravae_cli.images.prepare import Preparation, representative
from auravae_cli.images.read import LoadedImage, to_unit
from auravae_cli.images.trainer_buckets import AiToolkitBuckets, KohyaBuckets, MusubiBuckets
from auravae_cli.machine import memory
from auravae_cli.symmetry.action import act_on_base, act_on_pixels
from auravae_cli.symmetry.geometry import Box, Buckets, padding_for
from auravae_cli.symmetry.group import GROUP, E, GroupElement

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 21, 3), np.uint8)
LOADED = LoadedImage(PIXELS, "ab", 1, ())


@pytest.mark.parametrize("pad", ["edge", "reflect"])
def test_the_default_keeps_every_pixel_and_pads_the_sides(pad: Any) -> None:
    prepared = Preparation(pad=pad).apply(LOADED, 8)
    np.testing.assert_array_equal(prepared.pixels, PIXELS)
    assert prepared.padding == padding_for(13, 21, 8)
    assert prepared.padded.shape == (3, 16, 24)
    rows, columns = prepared.padding.inner(13, 21)
    np.testing.assert_array_equal(prepared.padded[:, rows, columns], to_unit(PIXELS))
    inside = {"edge": 0, "reflect": 1}[pad]
    np.testing.assert_array_equal(
        prepared.padded[:, prepared.padding.top - 1, columns], to_unit(PIXELS)[:, inside]
    )


@pytest.mark.parametrize("pad", ["edge", "reflect"])
def test_a_single_pixel_can_be_padded(pad: Any) -> None:
    prepared = Preparation(pad=pad).apply(LoadedImage(PIXELS[:1, :1], "ab", 1, ()), 8)
    expected = np.broadcast_to(to_unit(PIXELS[:1, :1]), (3, 8, 8))
    np.testing.assert_array_equal(prepared.padded, expected)


def test_crops_are_cut_where_they_say() -> None:
    framed = Preparation(crop=(4, 2, 10, 7)).frame(PIXELS)
    np.testing.assert_array_equal(framed, PIXELS[2:9, 4:14])
    framed = Preparation(center_crop=(5, 9)).frame(PIXELS)
    np.testing.assert_array_equal(framed, PIXELS[4:9, 6:15])
    framed = Preparation(crop=(0, 0, 21, 13), center_crop=(13, 21)).frame(PIXELS)
    np.testing.assert_array_equal(framed, PIXELS)


@pytest.mark.parametrize(
    "preparation",
    [
        Preparation(crop=(12, 0, 10, 5)),
        Preparation(crop=(0, 9, 5, 5)),
        Preparation(crop=(-1, 0, 5, 5)),
        Preparation(center_crop=(14, 5)),
        Preparation(center_crop=(5, 22)),
    ],
)
def test_crops_beyond_the_picture_are_refused(preparation: Preparation) -> None:
    with pytest.raises(InputImageError, match="does not lie in the picture of 21 x 13"):
        preparation.frame(PIXELS)


@pytest.mark.parametrize(
    ("short_side", "shape"), [(26, (26, 42, 3)), (5, (5, 8, 3)), (1, (1, 2, 3))]
)
def test_resizing_sets_the_short_side(short_side: int, shape: tuple[int, ...]) -> None:
    assert Preparation(resize=short_side).frame(PIXELS).shape == shape
    upright = Preparation(resize=short_side).frame(PIXELS.swapaxes(0, 1))
    assert upright.shape == (shape[1], shape[0], 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resizing_keeps_the_depth_and_the_range(dtype: Any) -> None:
    top = np.iinfo(dtype).max
    pixels = np.zeros((8, 8, 3), dtype)
    pixels[:, 4:] = top
    larger = Preparation(resize=32).frame(pixels)
    assert larger.dtype == dtype
    assert (larger[:, :15] < top / 4).all()  # Lanczos rings beyond both ends
    assert (larger[:, 17:] > top * 3 / 4).all()
    flat = np.full((8, 8, 3), top - 3, dtype)
    assert (Preparation(resize=5).frame(flat) == top - 3).all()


def test_the_record_says_what_was_asked_for() -> None:
    assert Preparation().to_json() == {"pad": "edge", "background": "white"}
    asked = Preparation((1, 2, 3, 4), 256, (8, 8), "reflect", "black").to_json()
    assert asked == {
        "crop": [1, 2, 3, 4],
        "resize": 256,
        "center_crop": [8, 8],
        "pad": "reflect",
        "background": "black",
    }


PICTURES = st.one_of(
    arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)),
        elements=st.integers(0, 255),
    ),
    # few colours of one brightness: what sums of pixels cannot tell apart
    arrays(
        np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 2)
    ).map(lambda indices: (np.eye(3, dtype=np.uint8) * 255)[indices]),
)
STEPS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda n: {"resize": n}, st.integers(1, 40)),
    st.builds(lambda n: {"buckets": Buckets(n, 8)}, st.integers(8, 40)),
    st.sampled_from(
        [
            {"buckets": KohyaBuckets((24, 40), 8, 64, 8)},
            {"buckets": KohyaBuckets((24, 40), 1, 64, 1, bucket_no_upscale=True)},
            {"buckets": MusubiBuckets((32, 40))},
            {"buckets": AiToolkitBuckets(24, 8)},
        ]
    ),
    st.builds(lambda h, w: {"center_crop": (h, w)}, st.integers(1, 12), st.integers(1, 12)),
    st.builds(
        lambda n, m: {"resize": max(n, m), "center_crop": (n, m)},
        st.integers(1, 20),
        st.integers(1, 20),
    ),
    st.just({}),
)


@settings(max_examples=300)
@given(PICTURES, STEPS, st.sampled_from(["edge", "reflect"]), st.sampled_from(GROUP))
def test_preparation_commutes_with_the_group(
    pixels: Any, steps: dict[str, Any], pad: Any, g: GroupElement
) -> None:
    """Exactly, for every picture that is not a mirror image of itself (whose odd pixels must lie
    on some side)."""
    assume(not any(np.array_equal(act_on_pixels(k, pixels), pixels) for k in GROUP if k != E))
    height, width = pixels.shape[:2]
    crop = steps.get("center_crop", (1, 1))
    assume("resize" in steps or (crop[0] <= height and crop[1] <= width))
    preparation = Preparation(pad=pad, **steps)
    straight = preparation.apply(LoadedImage(pixels, "ab", 1, ()), 8)
    turned = preparation.apply(LoadedImage(act_on_pixels(g, pixels), "ab", 1, ()), 8)
    np.testing.assert_array_equal(turned.padded, act_on_base(g, straight.padded))
    np.testing.assert_array_equal(turned.pixels, act_on_pixels(g, straight.pixels))
    assert turned.padding == straight.padding.act(g)
    assert turned.box.as_tuple() == pytest.approx(
        straight.box.act(g, height, width).as_tuple(), abs=1e-9
    )


@given(PICTURES, STEPS)
def test_the_box_is_the_part_of_the_source_that_is_shown(
    pixels: Any, steps: dict[str, Any]
) -> None:
    height, width = pixels.shape[:2]
    crop = steps.get("center_crop", (1, 1))
    assume("resize" in steps or (crop[0] <= height and crop[1] <= width))
    prepared = Preparation(**steps).apply(LoadedImage(pixels, "ab", 1, ()), 8)
    box = prepared.box
    assert 0 <= box.left < box.right <= width + 1e-9
    assert 0 <= box.top < box.bottom <= height + 1e-9
    if "buckets" in steps:
        shape = prepared.pixels.shape
        assert shape[:2] == steps["buckets"].nearest(height, width)
        down, across = steps["buckets"].scales(height, width)
        assert (box.bottom - box.top) * down == pytest.approx(shape[0])
        assert (box.right - box.left) * across == pytest.approx(shape[1])
        if isinstance(steps["buckets"], Buckets):
            assert down == across
            whole = box.bottom - box.top, box.right - box.left
            assert whole[0] == pytest.approx(height) or whole[1] == pytest.approx(width)
    elif "resize" not in steps:
        rows, columns = (
            slice(int(box.top), int(box.bottom)),
            slice(int(box.left), int(box.right)),
        )
        np.testing.assert_array_equal(prepared.pixels, pixels[rows, columns])


def test_the_box_speaks_of_the_whole_source() -> None:
    cropped = Preparation(crop=(4, 2, 10, 7), center_crop=(3, 4)).apply(LOADED, 8)
    left, top, right, bottom = map(int, cropped.box.as_tuple())
    np.testing.assert_array_equal(cropped.pixels, PIXELS[top:bottom, left:right])
    assert Preparation(crop=(4, 2, 10, 7), resize=14).apply(LOADED, 8).box == Box(4, 2, 14, 9)


@given(PICTURES, st.sampled_from(GROUP))
def test_one_picture_stands_for_its_mirror_images(pixels: Any, g: GroupElement) -> None:
    standing, other = (
        act_on_pixels(representative(x), x) for x in (pixels, act_on_pixels(g, pixels))
    )
    np.testing.assert_array_equal(standing, other)


def test_a_line_of_pixels_is_not_made_a_picture_that_no_memory_holds(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 100_000_000)
    line = LoadedImage(np.zeros((1, 10_000, 3), np.uint8), "", 1, ())
    preparation = Preparation(resize=512, center_crop=(512, 512))
    with pytest.raises(InputImageError, match="resized: 5120000 x 512 pixels take up to 50000 MB"):
        preparation.apply(line, 8)
    with pytest.raises(InputImageError, match="resized: 5120000 x 512 pixels"):
        preparation.size(1, 10_000)
    assert preparation.size(100, 200) == (512, 512)
