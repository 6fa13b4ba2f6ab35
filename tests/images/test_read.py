"""Picture files to pixels: every mode, orientation, profile; every conversion noticed."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import ExifTags, GifImagePlugin, Image, ImageCms, ImageOps, PngImagePlugin

from auravae_cli.errors import InputImageError
from auravae_cli.images import alpha, opening
from auravae_cli.images.read import (
    LoadedImage,
    from_pillow,
    from_unit,
    read_image,
    read_size,
    to_unit,
)
from auravae_cli.images.write import picture_bytes
from auravae_cli.machine import memory
from tests.images.making import png

CMYK_NOTICE = "CMYK colours converted to sRGB without a profile"
SAMPLES = Path(__file__).parents[2] / "samples"


def noise(height: int, width: int, channels: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, top, shape, dtype, endpoint=True)


def saved(image: Image.Image | np.ndarray, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


def with_png_exif(png: bytes, orientation: int) -> bytes:
    """The same PNG with an orientation; Pillow cannot write 16-bit RGB itself."""
    start = png.index(b"eXIf") - 4
    (length,) = struct.unpack(">I", png[start : start + 4])
    other = saved(noise(1, 1), exif=exif(orientation))
    begin = other.index(b"eXIf") - 4
    (size,) = struct.unpack(">I", other[begin : begin + 4])
    return png[:start] + other[begin : begin + 12 + size] + png[start + 12 + length :]


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_of_8_bits(orientation: int) -> None:
    data = saved(noise(3, 5), exif=exif(orientation))
    loaded = read_image(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(loaded.pixels, np.asarray(upright))
    assert loaded.exif_orientation == orientation
    assert loaded.notices == ()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_of_every_format_that_has_them(file_format: str, orientation: int) -> None:
    """Pillow turns TIFFs itself, as it loads them, and others not."""
    data = saved(noise(24, 40), file_format, exif=exif(orientation))
    loaded = read_image(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(loaded.pixels, np.asarray(upright))
    assert loaded.exif_orientation == orientation
    assert read_size(io.BytesIO(data)) == loaded.pixels.shape[:2] == upright.size[::-1]


def test_the_size_of_a_png_is_read_without_its_pixels(monkeypatch: Any, tmp_path: Path) -> None:
    """Its orientation may follow them; only then they are decoded."""
    turned = saved(noise(24, 40), exif=exif(6))
    start, end = turned.index(b"eXIf") - 4, turned.index(b"IDAT") - 4
    behind = turned[:start] + turned[end:-12] + turned[start:end] + turned[-12:]
    decoded, load = [], PngImagePlugin.PngImageFile.load
    monkeypatch.setattr(
        PngImagePlugin.PngImageFile, "load", lambda self: decoded.append(1) or load(self)
    )
    for data, size, number in (
        (saved(noise(24, 40)), (24, 40), 0),
        (turned, (40, 24), 0),
        (turned[:-100], (40, 24), 0),
        (behind, (40, 24), 1),
    ):
        path = tmp_path / "a.png"
        path.write_bytes(data)
        decoded.clear()
        assert (read_size(path), len(decoded)) == (size, number)
        assert read_size(io.BytesIO(data)) == read_size(data) == size
    assert read_image(behind).exif_orientation == 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_of_16_bit_tiffs(orientation: int) -> None:
    grey = noise(3, 5, 1, np.uint16)
    data = saved(Image.fromarray(grey), "TIFF", exif=exif(orientation))
    loaded = read_image(data)
    upright = read_image(saved(Image.fromarray(grey), exif=exif(orientation)))
    np.testing.assert_array_equal(loaded.pixels, upright.pixels)
    assert loaded.exif_orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_of_16_bits(orientation: int) -> None:
    deep = noise(3, 5, dtype=np.uint16)
    loaded = read_image(with_png_exif(picture_bytes(deep, ".png"), orientation))
    planes = []
    for channel in range(3):  # Pillow turns 16 bits one channel at a time
        grey = Image.fromarray(deep[..., channel])
        grey.getexif()[ExifTags.Base.Orientation] = orientation
        planes.append(np.asarray(ImageOps.exif_transpose(grey)))
    assert loaded.pixels.dtype == np.uint16
    np.testing.assert_array_equal(loaded.pixels, np.stack(planes, axis=-1))
    assert loaded.exif_orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_of_16_bit_grey(orientation: int) -> None:
    grey = noise(3, 5, 1, np.uint16)
    data = saved(Image.fromarray(grey), exif=exif(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(read_image(data).pixels[..., 1], upright)


def test_an_orientation_out_of_range_is_none() -> None:
    loaded = read_image(saved(noise(3, 5), exif=exif(9)))
    assert loaded.exif_orientation == 1
    np.testing.assert_array_equal(loaded.pixels, noise(3, 5))


def test_the_sample_from_a_phone_is_upright() -> None:
    loaded = read_image((SAMPLES / "chelsea_exif6.jpg").read_bytes())
    assert loaded.exif_orientation == 6
    assert loaded.pixels.shape == (300, 240, 3)


# Modes


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3)])
def test_opaque_modes_are_pillows_rgb(mode: str, size: tuple[int, int]) -> None:
    width, height = size
    if mode == "I;16":
        grey = noise(height, width, 1, np.uint16)
        image, expected = Image.fromarray(grey), np.stack([grey] * 3, axis=-1)
    else:
        image = Image.fromarray(noise(height, width)).convert(mode)
        expected = np.asarray(image.convert("RGB"))
    data = saved(image, "TIFF")
    loaded = read_image(data)
    np.testing.assert_array_equal(loaded.pixels, expected)
    assert loaded.pixels.dtype == expected.dtype
    assert loaded.pixels.shape == (height, width, 3)
    assert loaded.notices == (CMYK_NOTICE,) * (mode == "CMYK")
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    np.testing.assert_array_equal(from_pillow(image).pixels, expected)


@pytest.mark.parametrize("background", ["white", "black", "#204060"])
def test_alpha_is_composited_with_a_notice(background: str) -> None:
    rgba = noise(4, 6, 4)
    loaded = read_image(saved(rgba), background=background)
    behind = {"white": (255, 255, 255), "black": (0, 0, 0), "#204060": (32, 64, 96)}[background]
    weight = rgba[..., 3:] / 255
    expected = np.rint(rgba[..., :3] * weight + np.array(behind) * (1 - weight))
    np.testing.assert_array_equal(loaded.pixels, expected.astype(np.uint8))
    assert loaded.notices == (f"alpha composited on {background}",)


def test_alpha_of_grey() -> None:
    grey = np.array([[[10, 255], [10, 0], [10, 51]]], np.uint8)
    loaded = read_image(saved(Image.fromarray(grey, "LA")))
    assert loaded.pixels[0, :, 0].tolist() == [10, 255, 206]
    assert loaded.notices == ("alpha composited on white",)


def test_opaque_alpha_needs_no_notice() -> None:
    rgba = noise(4, 6, 4)
    rgba[..., 3] = 255
    loaded = read_image(saved(rgba), background="black")
    np.testing.assert_array_equal(loaded.pixels, rgba[..., :3])
    assert loaded.notices == ()


def test_a_transparent_palette_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 0, 255, 0])
    image.putpixel((1, 0), 1)
    opaque, transparent = read_image(saved(image)), read_image(saved(image, transparency=1))
    assert opaque.pixels.tolist() == [[[200, 10, 20], [0, 255, 0]]]
    assert opaque.notices == ()
    assert transparent.pixels.tolist() == [[[200, 10, 20], [255, 255, 255]]]
    assert transparent.notices == ("alpha composited on white",)


def test_a_transparent_colour_of_rgb_png() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    loaded = read_image(saved(image, transparency=(4, 5, 6)), background="black")
    assert loaded.pixels.tolist() == [[[1, 2, 3], [0, 0, 0]]]


def test_16_bit_rgb_is_exact() -> None:
    deep = noise(9, 7, dtype=np.uint16)
    loaded = read_image(picture_bytes(deep, ".png"))
    assert loaded.pixels.dtype == np.uint16
    np.testing.assert_array_equal(loaded.pixels, deep)
    assert loaded.notices == ()


def test_16_bit_samples_keep_more_than_their_high_bytes() -> None:
    for name in ("hubble_16bit_rgb.png", "retina_16bit.png"):
        pixels = read_image((SAMPLES / name).read_bytes()).pixels
        assert pixels.dtype == np.uint16
        assert len(np.unique(pixels)) > 256
        assert not np.array_equal(pixels, pixels >> 8 << 8)


def test_float_and_integer_tiffs_in_range() -> None:
    grey = np.array([[0, 0.5, 1]], np.float32)
    assert read_image(saved(grey, "TIFF")).pixels[0, :, 0].tolist() == [0, 32768, 65535]
    integers = np.array([[0, 300, 65535]], np.int32)
    assert read_image(saved(integers, "TIFF")).pixels[0, :, 2].tolist() == [0, 300, 65535]


@pytest.mark.parametrize("bad", [-0.1, 1.5, np.nan, np.inf])
def test_floats_out_of_range_have_no_colour(bad: float) -> None:
    with pytest.raises(InputImageError, match="floating-point picture with values beyond 0 to 1"):
        read_image(saved(np.array([[0.5, bad]], np.float32), "TIFF"))


@pytest.mark.parametrize("bad", [-1, 65536])
def test_integers_out_of_range_have_no_colour(bad: int) -> None:
    with pytest.raises(InputImageError, match="32-bit integer picture with values beyond"):
        read_image(saved(np.array([[5, bad]], np.int32), "TIFF"))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "JPEG2000"])
def test_lossless_formats_are_exact(file_format: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}
    data = saved(noise(8, 9), file_format, **options.get(file_format, {}))
    np.testing.assert_array_equal(read_image(data).pixels, noise(8, 9))


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_are_as_pillow_decodes_them(file_format: str) -> None:
    data = saved(noise(16, 24), file_format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read_image(data).pixels, expected)


def test_a_long_thin_picture() -> None:
    strip = noise(2, 8193)
    np.testing.assert_array_equal(read_image(saved(strip)).pixels, strip)
    np.testing.assert_array_equal(read_image(saved(strip.swapaxes(0, 1))).pixels[:, 1], strip[1])


def test_animations_give_their_first_frame_with_a_notice() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    loaded = read_image(data)
    assert (loaded.pixels == [255, 0, 0]).all()
    assert loaded.notices == ("first of several frames used",)


def test_pillow_images_are_hashed_by_their_pixels() -> None:
    loaded = from_pillow(Image.fromarray(noise(3, 4)))
    assert loaded.sha256 == hashlib.sha256(noise(3, 4).tobytes()).hexdigest()
    assert isinstance(loaded, LoadedImage)


# Colour profiles

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """The sRGB profile with red and blue exchanged, under another name."""
    assert SRGB.count(b"rXYZ") == SRGB.count(b"bXYZ") == 1
    exchanged = SRGB.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    return exchanged.replace("sRGB".encode("utf-16-be"), "BGR!".encode("utf-16-be"))


def test_an_srgb_profile_leaves_the_pixels_untouched() -> None:
    loaded = read_image(saved(noise(4, 4), icc_profile=SRGB))
    np.testing.assert_array_equal(loaded.pixels, noise(4, 4))
    assert loaded.notices == ()


def linear_profile() -> bytes:
    """sRGB's primaries with straight curves, under a name that has "sRGB" in it, as GIMP's has."""
    content = bytearray(SRGB)
    for number in range(struct.unpack(">I", content[128:132])[0]):
        name, start, size = struct.unpack(">4sII", content[132 + 12 * number : 144 + 12 * number])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            content[start : start + size] = (b"curv" + bytes(size))[:size]  # no points: identity
    return bytes(content)


def test_linear_srgb_is_not_srgb() -> None:
    description = ImageCms.getProfileDescription(
        ImageCms.ImageCmsProfile(io.BytesIO(linear_profile()))
    )
    assert "sRGB" in description
    loaded = read_image(saved(np.full((2, 2, 3), 64, np.uint8), icc_profile=linear_profile()))
    assert (np.abs(loaded.pixels.astype(int) - 137) <= 1).all()
    (notice,) = loaded.notices
    assert notice.startswith("colours converted from")


def test_cmyk_without_a_profile_says_so() -> None:
    loaded = read_image(saved(Image.fromarray(noise(8, 8)).convert("CMYK"), "JPEG"))
    assert loaded.notices == (CMYK_NOTICE,)


def test_another_profile_is_converted_with_a_notice() -> None:
    loaded = read_image(saved(noise(4, 4), icc_profile=swapped_profile()))
    assert loaded.notices == ("colours converted from BGR! built-in to sRGB",)
    difference = loaded.pixels.astype(int) - noise(4, 4)[..., ::-1]
    assert abs(difference).max() <= 2


def test_a_profile_of_transparent_colours_is_converted_before_compositing() -> None:
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
    loaded = read_image(saved(rgba, icc_profile=swapped_profile()), background="red")
    assert abs(loaded.pixels.astype(int) - [[[0, 0, 200], [255, 0, 0]]]).max() <= 2


def test_a_profile_of_16_bit_colours_costs_bits_without_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    grey = Image.fromarray(noise(3, 3, 1, np.uint16))
    loaded = read_image(saved(grey, icc_profile=swapped_profile()))
    assert loaded.pixels.dtype == np.uint16
    assert loaded.notices == (
        "colours converted from BGR! built-in to sRGB",
        "16-bit colours reduced to 8 bits to convert the ICC profile",
    )
    exact = read_image(saved(grey, icc_profile=SRGB))
    np.testing.assert_array_equal(exact.pixels[..., 0], noise(3, 3, 1, np.uint16))


@pytest.mark.parametrize("profile", [b"no profile", SRGB[:200], bytes(128)])
def test_a_broken_profile_is_ignored_with_a_notice(profile: bytes) -> None:
    loaded = read_image(saved(noise(4, 4), icc_profile=profile))
    np.testing.assert_array_equal(loaded.pixels, noise(4, 4))
    (notice,) = loaded.notices
    assert notice.startswith("colour profile ignored, sRGB assumed")


def test_an_unusable_profile_costs_no_bits() -> None:
    grey = noise(3, 3, 1, np.uint16)
    loaded = read_image(saved(Image.fromarray(grey), icc_profile=b"no profile"))
    np.testing.assert_array_equal(loaded.pixels[..., 0], grey)
    (notice,) = loaded.notices
    assert notice.startswith("colour profile ignored, sRGB assumed")


@pytest.mark.parametrize("kind", ["LAB", "XYZ"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_a_profile_of_other_colours_is_ignored_with_a_notice(kind: Any, mode: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()
    image = Image.fromarray(noise(4, 4)).convert(mode)
    loaded = read_image(saved(image, icc_profile=profile))
    np.testing.assert_array_equal(loaded.pixels, np.asarray(image.convert("RGB")))
    (notice,) = loaded.notices
    assert notice.startswith("colour profile ignored, sRGB assumed")


# Refusals


def test_a_decoders_warning_becomes_a_notice() -> None:
    data = saved(noise(8, 8), "WEBP", exif=exif(6)[:-2])  # the tags break off
    loaded = read_image(data)
    assert loaded.pixels.shape == (8, 8, 3)
    assert [notice.startswith("the decoder warns: ") for notice in loaded.notices] == [True]


@pytest.mark.parametrize("limit", [11, 6, 5, 1, 0])
def test_oversized_pictures_are_refused_by_a_message_that_names_the_option(limit: int) -> None:
    assert read_image(saved(noise(3, 4)), max_pixels=12).pixels.shape == (3, 4, 3)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputImageError, match=f"limit of {limit}; raise it with --max-pixels"):
        read_image(saved(noise(3, 4)), max_pixels=limit)
    assert before == Image.MAX_IMAGE_PIXELS


def test_sizes_beyond_pillows_default_are_ours_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    assert read_image(saved(noise(3, 4))).pixels.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty: expected a picture"),
        (b"a text that someone named .png", "not a picture, or a damaged one: expected one of PNG"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF", "not a picture"),
        (b"%PDF-1.4\n", "not a picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture"),
    ],
)
def test_bytes_that_are_no_picture(data: bytes, message: str) -> None:
    with pytest.raises(InputImageError, match=message):
        read_image(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"])
def test_truncated_pictures_are_refused(file_format: str) -> None:
    data = saved(noise(40, 40), file_format)
    for part in (0.05, 0.5, 0.9):
        with pytest.raises(InputImageError, match="picture"):
            read_image(data[: int(len(data) * part)])


def small_files() -> list[bytes]:
    picture = Image.fromarray(noise(6, 5))
    tags = exif(6)
    frames = [picture.rotate(90, expand=True)]
    return [
        saved(picture, "PNG", exif=tags, icc_profile=SRGB),
        saved(picture.convert("P"), "PNG", transparency=3),
        picture_bytes(noise(4, 3, dtype=np.uint16), ".png"),
        saved(picture, "JPEG", exif=tags, icc_profile=swapped_profile()),
        saved(picture, "WEBP", exif=tags),
        saved(picture, "TIFF", exif=tags),
        saved(picture, "TIFF", compression="tiff_lzw"),
        saved(picture.convert("F"), "TIFF"),
        saved(picture, "GIF", save_all=True, append_images=frames),
        saved(picture, "BMP"),
        saved(picture, "PPM"),
    ]


@given(st.sampled_from(small_files()), st.data())
@settings(max_examples=500)
def test_damaged_bytes_are_read_or_refused(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(damaged)))
        new = draw.draw(st.binary(max_size=4))
        damaged[at : at + draw.draw(st.just(len(new)) | st.integers(0, 40))] = new
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the reader lets no warning through
        try:
            loaded = read_image(bytes(damaged), max_pixels=100_000)
        except InputImageError:
            return
    assert loaded.pixels.ndim == 3
    assert loaded.pixels.shape[2] == 3
    assert loaded.pixels.dtype in (np.uint8, np.uint16)


# The range that models take


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_every_level_survives_the_unit_range(bits: int, dtype: Any) -> None:
    levels = np.arange(2**bits).astype(dtype).reshape(-1, 16, 1).repeat(3, axis=2)
    unit = to_unit(levels)
    assert unit.dtype == np.float32
    assert unit.shape == (3, 2**bits // 16, 16)
    assert (unit.min(), unit.max()) == (-1, 1)
    np.testing.assert_array_equal(from_unit(unit, bits), levels)


def test_values_beyond_the_range_are_clipped() -> None:
    values = np.array([-9, -1, 0, 1, 9], np.float32).reshape(1, 1, 5).repeat(3, axis=0)
    assert from_unit(values)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert from_unit(values, 16)[0, :, 0].tolist() == [0, 0, 32768, 65535, 65535]


def test_damaged_exif_data_costs_no_pixels() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 5), "teal").save(buffer, "WEBP", exif=b"Exif\0\0garbage")
    loaded = read_image(buffer.getvalue())
    assert loaded.pixels.shape == (5, 9, 3)
    assert loaded.exif_orientation == 1
    assert any("EXIF data ignored" in notice for notice in loaded.notices)


def decoder_reads(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except Exception:
            return False
    return True


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF"])
def test_no_damage_passes_that_the_decoder_refuses(file_format: str) -> None:
    """Of a PNG without EXIF data, reading these data is what decodes it."""
    whole = saved(noise(24, 24), file_format)
    refused = 0
    for place in range(8, len(whole), max(1, len(whole) // 60)):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        if not decoder_reads(damaged):
            refused += 1
            with pytest.raises(InputImageError):
                read_image(damaged)
    assert refused > 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_changed_byte_of_a_pngs_pixels_is_damage(dtype: Any) -> None:
    """Pillow takes those that still decode, to other pixels, for it checks no sum of them."""
    whole = png(noise(9, 11, dtype=dtype))
    start = whole.index(b"IDAT")
    passed = 0
    for place in range(start + 4, len(whole) - 12):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        passed += decoder_reads(damaged)
        with pytest.raises(InputImageError, match="damaged"):
            read_image(damaged)
    assert passed > 0
    with pytest.raises(InputImageError, match="damaged"):
        read_image(whole[:-12])
    np.testing.assert_array_equal(read_image(whole + b"behind").pixels, noise(9, 11, dtype=dtype))


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_png_may_carry_a_large_text(is_packed: bool) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "a" * 1_500_000, zip=is_packed)
    texts.add_itxt("prompt", "b" * 1_500_000, zip=is_packed)
    data = saved(noise(4, 4), pnginfo=texts)
    np.testing.assert_array_equal(read_image(data).pixels, noise(4, 4))
    assert read_size(io.BytesIO(data)) == (4, 4)


def test_a_png_may_carry_a_large_profile() -> None:
    loaded = read_image(saved(noise(4, 4), icc_profile=SRGB + bytes(1_500_000)))
    np.testing.assert_array_equal(loaded.pixels, noise(4, 4))
    assert loaded.notices == ()


def test_threads_lift_pillows_own_limit_together(monkeypatch):
    """It comes back when the last is done, not while another still needs it lifted."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    limit = opening._without_pillows_limit
    limit.__enter__()
    limit.__enter__()
    limit.__exit__()
    assert Image.MAX_IMAGE_PIXELS is None
    limit.__exit__()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_picture_that_the_memory_does_not_hold_is_not_tried(monkeypatch: Any) -> None:
    data = saved(Image.new("L", (1000, 1000)), "PNG")
    monkeypatch.setattr(memory, "free_memory", lambda: 21_000_000)
    assert read_image(data).pixels.shape == (1000, 1000, 3)
    monkeypatch.setattr(memory, "free_memory", lambda: 19_000_000)
    with pytest.raises(InputImageError, match="1000 x 1000 pixels take up to 19 MB, and 18 MB are"):
        read_image(data)


@pytest.mark.parametrize(
    "mode", ["RGBA", "LA", "La", "P", "CMYK", "LAB", "YCbCr", "1", "RGB", "16"]
)
@pytest.mark.parametrize("has_profile", [False, True])
def test_bands_give_what_the_whole_gives(monkeypatch, mode: str, has_profile: bool) -> None:
    info = {"icc_profile": swapped_profile()} if has_profile else {}
    content, picture = (SAMPLES / "hubble_16bit_rgb.png").read_bytes(), Image.new("L", (1, 1))
    if mode == "LAB":
        picture = Image.frombytes("LAB", (23, 37), noise(37, 23).tobytes())
    elif mode != "16":
        via = Image.fromarray(noise(37, 23, 4)).convert("LA" if mode == "La" else "RGBA")
        picture = via.convert("RGB" if mode in ("CMYK", "YCbCr", "P") else via.mode).convert(mode)
    picture.info |= info

    def load() -> LoadedImage:
        return read_image(content) if mode == "16" else from_pillow(picture, background="red")

    whole = load()
    monkeypatch.setattr(alpha, "_BAND_PIXELS", 60)
    parts = load()
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    assert parts.notices == whole.notices


def test_frames_are_not_counted(monkeypatch) -> None:
    """Of a file of a hundred thousand frames that would take minutes."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "n_frames", property(lambda self: 1 / 0))
    assert read_image(data).notices == ("first of several frames used",)
