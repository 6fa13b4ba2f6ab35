"""Which picture of a file is taken, which way up, and with which colours and alpha."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from auravae_cli.errors import InputImageError
from auravae_cli.images.read import from_pillow, read_image, read_size
from tests.images.making import steps, tiff


def frames(*pages: tuple[np.ndarray, dict]) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for values, options in pages:
            file.write(values, photometric="rgb", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_first_of_equal_frames(dtype: type) -> None:
    data = frames((steps(dtype), {}), (steps(dtype) // 2, {}), (steps(dtype) // 3, {}))
    loaded = read_image(data)
    np.testing.assert_array_equal(loaded.pixels, steps(dtype))
    assert loaded.notices == ("first of 3 frames used",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{}, {"subfiletype": 1}])
@pytest.mark.parametrize("thumbnail_first", [True, False])
def test_thumbnails_are_not_the_picture(thumbnail_first: bool, options: dict, dtype: type) -> None:
    pages = [(steps(np.uint8)[::4, ::4], options), (steps(dtype), {})]
    data = frames(*(pages if thumbnail_first else pages[::-1]))
    loaded = read_image(data)
    np.testing.assert_array_equal(loaded.pixels, steps(dtype))
    assert read_size(io.BytesIO(data)) == (16, 16)
    place = "largest" if thumbnail_first else "first"
    is_said = thumbnail_first or not options
    assert loaded.notices == (f"{place} of 2 frames used",) * is_said


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_picture_may_lie_below_its_thumbnail(dtype: type) -> None:
    """In a SubIFD, as cameras write it."""
    data = frames((steps(np.uint8)[::4, ::4], {"subifds": 1, "subfiletype": 1}), (steps(dtype), {}))
    loaded = read_image(data)
    np.testing.assert_array_equal(loaded.pixels, steps(dtype))
    assert loaded.notices == ("largest of 2 frames used",)


def test_reduced_copies_are_no_frames() -> None:
    """As those of a pyramid."""
    data = frames(
        (steps(np.uint8), {"subifds": 1}), (steps(np.uint8)[::2, ::2], {"subfiletype": 1})
    )
    loaded = read_image(data)
    np.testing.assert_array_equal(loaded.pixels, steps(np.uint8))
    assert loaded.notices == ()


@pytest.mark.parametrize("is_below", [False, True])
def test_raw_files_are_refused(is_below: bool) -> None:
    """What is in one to look at is a preview."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(
            steps(np.uint8)[::2, ::2], photometric="rgb", subifds=int(is_below), subfiletype=1
        )
        tags = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)]
        file.write(steps()[..., 0], photometric="cfa", extratags=tags)
    with pytest.raises(InputImageError, match="a camera's raw file"):
        read_image(buffer.getvalue())


def test_a_dng_is_refused_by_its_tag() -> None:
    version = [(50706, 1, 4, (1, 4, 0, 0), True)]
    with pytest.raises(InputImageError, match="a camera's raw file"):
        read_image(tiff(steps(np.uint8), photometric="rgb", extratags=version))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "AVIF"])
def test_frames_are_counted_where_the_header_says_how_many(file_format: str) -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    buffer = io.BytesIO()
    pictures[0].save(buffer, file_format, save_all=True, append_images=pictures[1:])
    assert read_image(buffer.getvalue()).notices == ("first of 3 frames used",)


# Orientation

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "PNG", "AVIF"])
def test_an_orientation_in_xmp_alone_turns_nothing(file_format: str) -> None:
    buffer = io.BytesIO()
    picture = Image.fromarray(steps(np.uint8)[:8])
    if file_format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        picture.save(buffer, "PNG", pnginfo=info)
    else:
        picture.save(buffer, file_format, xmp=XMP)
    loaded = read_image(buffer.getvalue())
    assert loaded.pixels.shape == (8, 16, 3)
    assert loaded.exif_orientation == 1
    assert read_size(io.BytesIO(buffer.getvalue())) == (8, 16)
    opened = Image.open(io.BytesIO(buffer.getvalue()))
    assert from_pillow(opened).pixels.shape == (8, 16, 3)
    assert any(b"tiff:Orientation" in bytes(str(v), "latin-1") for v in opened.info.values())


# Palettes and alpha


@pytest.mark.parametrize("factor", [1, 257])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_maps_of_8_and_of_16_bits(order: str, factor: int) -> None:
    colour_map = np.stack([np.arange(256), np.full(256, 200), 255 - np.arange(256)])
    indices = steps(np.uint8)[..., 0]
    data = tiff(
        indices,
        photometric="palette",
        colormap=(colour_map * factor).astype(np.uint16),
        byteorder=order,
    )
    expected = colour_map.T[indices]
    np.testing.assert_array_equal(read_image(data).pixels, expected)


def tga(bits: int, attribute_bits: int, pixel: bytes) -> bytes:
    """A TGA of 4 x 4 equal pixels."""
    header = struct.pack("<BBBHHBHHHH", 0, 0, 2, 0, 0, 0, 0, 0, 4, 4)
    return header + bytes((bits, attribute_bits | 0x20)) + pixel * 16


@pytest.mark.parametrize("spare", [0, 0x8000])
def test_the_spare_bit_of_a_16_bit_tga_is_no_alpha(spare: int) -> None:
    loaded = read_image(tga(16, 0, struct.pack("<H", spare | 0x7C1F)))
    assert (loaded.pixels == (255, 0, 255)).all()
    assert loaded.notices == ()


def test_alpha_of_a_tga() -> None:
    assert (read_image(tga(16, 1, struct.pack("<H", 0xFC1F))).pixels == (255, 0, 255)).all()
    half = read_image(tga(32, 8, bytes((30, 40, 200, 51))))
    assert half.notices == ("alpha composited on white",)
    for bits, attributes, pixel in ((32, 8, bytes((255, 0, 255, 0))), (16, 1, b"\x1f\x7c")):
        loaded = read_image(tga(bits, attributes, pixel))
        assert (loaded.pixels == (255, 0, 255)).all()
        assert loaded.notices == ("alpha ignored: the whole picture would be transparent",)


# What is not read


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"%PDF-1.4\n", "not a picture of pixels but a PDF"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "not a picture of pixels but SVG"),
        (b"<!DOCTYPE html><html>", "not a picture: a web page"),
        (b"8BPS\0\1", "Photoshop"),
        (b"v/1\x01\2\0\0\0", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"\0\0\1\0\1\0", r"an icon \(ICO\)"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw file .CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw file .CR3"),
        (b"FUJIFILMCCD-RAW 0201", "raw file .RAF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a film"),
    ],
)
def test_what_is_known_and_not_read_is_called_by_its_name(start: bytes, message: str) -> None:
    with pytest.raises(InputImageError, match=message):
        read_image(start + bytes(100))


def test_without_the_extra_heic_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        InputImageError, match=r"a HEIC picture: to read it, .*imagecodecs pillow-heif"
    ):
        read_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


@pytest.mark.parametrize("bits", [8, 10])
def test_heic(bits: int) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    values = np.repeat(np.repeat(steps(), 4, axis=0), 4, axis=1)
    picture = heif.from_bytes("RGB;16", (64, 64), values.tobytes())
    if bits == 8:
        picture = heif.from_pillow(Image.fromarray((values >> 8).astype(np.uint8)))
    picture.save(buffer, quality=95, chroma=444)
    loaded = read_image(buffer.getvalue())
    assert loaded.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    top = np.iinfo(loaded.pixels.dtype).max
    assert abs(loaded.pixels[8, 56] / top - np.array([40000, 20000, 10000]) / 65535).max() < 0.02
    assert read_size(io.BytesIO(buffer.getvalue())) == (64, 64)
    with pytest.raises(InputImageError):
        read_image(buffer.getvalue()[:-200])
