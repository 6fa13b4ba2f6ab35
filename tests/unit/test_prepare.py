"""What is done to a picture before it is encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from auravae_cli.errors import InputImageError
from auravae_cli.geometry import padding_for
from auravae_cli.imagefile import LoadedImage, to_unit
from auravae_cli.prepare import Preparation

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
