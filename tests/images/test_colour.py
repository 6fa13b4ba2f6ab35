"""Colours that are declared, in a profile or in numbers: converted with a notice, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from auravae_cli.errors import InputImageError
from auravae_cli.images.boxes import boxes, inside
from auravae_cli.images.jpeg_xl_header import read_header
from auravae_cli.images.read import read_image
from tests.images.making import grey_profile, png, profile, tiff

# (200, 40, 30) as browsers show it
P3, LINEAR = (217, 0, 5), (229, 110, 96)


def flat(dtype: Any = np.uint8, colour: tuple[int, ...] = (200, 40, 30)) -> np.ndarray:
    values = np.broadcast_to(np.array(colour, np.uint16), (16, 16, len(colour)))
    return (values * 257).astype(np.uint16) if dtype == np.uint16 else values.astype(np.uint8)


def is_near(pixels: np.ndarray, colour: tuple[int, ...]) -> bool:
    found = pixels[2, 2] / (np.iinfo(pixels.dtype).max / 255)
    return bool(abs(found - np.array(colour)).max() <= 2)


def avif(primaries: int, transfer: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(flat()).save(buffer, "AVIF", quality=100, subsampling="4:4:4")
    data = buffer.getvalue()
    place = data.index(b"nclx") + 4
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def cicp(primaries: int, transfer: int, dtype: Any = np.uint8) -> bytes:
    return png(flat(dtype), (b"cICP", bytes((primaries, transfer, 0, 1))))


def heic(primaries: int, transfer: int) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    picture = heif.from_pillow(Image.fromarray(flat()).resize((64, 64)))
    picture.save(
        buffer,
        quality=100,
        chroma=444,
        color_primaries=primaries,
        transfer_characteristics=transfer,
    )
    return buffer.getvalue()


def bits_of(number: int, count: int) -> str:
    return "".join(str(number >> place & 1) for place in range(count))


def jpeg_xl(primaries: int, transfer: int) -> bytes:
    """A lossless file of sRGB, the colours in whose header are exchanged (ISO 18181-1, annex D)."""
    codecs = pytest.importorskip("imagecodecs")
    data = codecs.jpegxl_encode(np.ascontiguousarray(flat()), lossless=True)
    spelt = "".join(bits_of(byte, 8) for byte in data[2:])
    # SizeHeader: small, 16 rows, ratio 1:1. ImageMetadata: not by default, nothing more, 8 bits,
    # modular_16bit, no more channels, not XYB. Then: the colours by default, no extensions, transform
    # by default; frames begin at a byte.
    start = "1" + bits_of(1, 5) + bits_of(1, 3) + "0" + "0" + "0" + "00" + "1" + "00" + "0"
    assert spelt.startswith(start + "1" + "00" + "1")
    enum = {0: "00", 1: "10"} | {n: "01" + bits_of(n - 2, 4) for n in range(2, 18)}
    enum |= {n: "11" + bits_of(n - 18, 6) for n in range(18, 82)}
    numbers = {1: 1, 9: 9, 12: 11}[primaries]
    colours = "0" + "0" + enum[0] + enum[1] + enum[numbers] + "0" + enum[transfer] + enum[1]
    header = start + colours + "00" + "1"
    header += "0" * (-len(header) % 8)
    rest = data[2 + -(-(len(start) + 4) // 8) :]
    whole = bytes(int(header[n : n + 8][::-1], 2) for n in range(0, len(header), 8))
    return data[:2] + whole + rest


@pytest.mark.parametrize("make", [avif, cicp, heic, jpeg_xl])
def test_display_p3_in_numbers(make: Any) -> None:
    loaded = read_image(make(12, 13))
    assert is_near(loaded.pixels, P3)
    assert len(loaded.notices) == 1
    assert loaded.notices[0].startswith("colours converted from ")


@pytest.mark.parametrize("make", [avif, cicp, heic, jpeg_xl])
def test_linear_light_in_numbers(make: Any) -> None:
    loaded = read_image(make(1, 8))
    assert is_near(loaded.pixels, LINEAR)
    assert len(loaded.notices) == 1


@pytest.mark.parametrize("make", [avif, cicp, heic, jpeg_xl])
@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused(transfer: int, make: Any) -> None:
    with pytest.raises(InputImageError, match="high dynamic range"):
        read_image(make(9, transfer))


@pytest.mark.parametrize("make", [avif, cicp, heic, jpeg_xl])
def test_srgb_in_numbers_stays(make: Any) -> None:
    loaded = read_image(make(1, 13))
    assert is_near(loaded.pixels, (200, 40, 30))
    assert loaded.notices == ()


@pytest.mark.parametrize("transfer", [1, 2, 6, 14])
def test_curves_of_video_are_read_as_browsers_do(transfer: int) -> None:
    loaded = read_image(cicp(1, transfer))
    np.testing.assert_array_equal(loaded.pixels, flat())


@pytest.mark.parametrize("numbers", [(10, 13), (1, 9), (200, 13), (1, 200)])
def test_numbers_that_stand_for_nothing_here_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(InputImageError, match=r"H\.273"):
        read_image(cicp(*numbers))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gamma_and_primaries_of_png(dtype: Any) -> None:
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    assert is_near(read_image(png(flat(dtype), gamma)).pixels, LINEAR)
    places = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    primaries = (b"cHRM", struct.pack(">8I", *places))
    usual = (b"gAMA", struct.pack(">I", 45455))
    assert is_near(read_image(png(flat(dtype), usual, primaries)).pixels, (219, 0, 2))


def test_what_png_declares_of_srgb_changes_nothing() -> None:
    places = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    chunks = [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *places))]
    for some in ([], chunks[:1], chunks[1:], chunks):
        loaded = read_image(png(flat(), *some))
        np.testing.assert_array_equal(loaded.pixels, flat())
        assert loaded.notices == ()


def test_the_order_of_what_png_declares() -> None:
    """cICP, iCCP, sRGB, gAMA: the third edition's order of precedence."""
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    icc = (b"iCCP", b"x\0\0" + zlib.compress(profile()))
    numbers = (b"cICP", bytes((1, 13, 0, 1)))
    srgb = (b"sRGB", b"\0")
    assert is_near(read_image(png(flat(), gamma, srgb)).pixels, (200, 40, 30))
    assert is_near(read_image(png(flat(), gamma, icc)).pixels, P3)
    assert is_near(read_image(png(flat(), gamma, icc, numbers)).pixels, (200, 40, 30))


@pytest.mark.parametrize(
    "chunk",
    [(b"gAMA", bytes(4)), (b"cHRM", bytes(32)), (b"cHRM", b"\xff" * 32), (b"cICP", b"\x0c")],
)
def test_declarations_that_mean_nothing_are_none(chunk: tuple[bytes, bytes]) -> None:
    np.testing.assert_array_equal(read_image(png(flat(), chunk)).pixels, flat())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_a_profile_of_grey(has_alpha: bool, dtype: Any) -> None:
    """Of gamma 1: 64 of 255 is 137 in sRGB."""
    pytest.importorskip("imagecodecs")
    values = flat(dtype, (64, 255) if has_alpha else (64,))
    loaded = read_image(png(values, (b"iCCP", b"x\0\0" + zlib.compress(grey_profile(1)))))
    assert is_near(loaded.pixels, (137, 137, 137))
    assert loaded.notices == ("colours converted from grey to sRGB",)
    extra = {"extrasamples": ["unassalpha"], "planarconfig": "contig"} if has_alpha else {}
    as_tiff = tiff(values.squeeze(), photometric="minisblack", iccprofile=grey_profile(1), **extra)
    assert is_near(read_image(as_tiff).pixels, (137, 137, 137))


def test_a_profile_of_grey_on_floating_point_numbers() -> None:
    values = np.full((4, 4), 64 / 255, np.float32)
    data = tiff(values, photometric="minisblack", iccprofile=grey_profile(1))
    assert is_near(read_image(data).pixels, (137, 137, 137))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_a_profile_of_rgb_on_grey(has_alpha: bool, dtype: Any) -> None:
    straight = profile(b"curv" + bytes(8))
    values = flat(dtype, (64, 255) if has_alpha else (64,))
    loaded = read_image(png(values, (b"iCCP", b"x\0\0" + zlib.compress(straight))))
    assert is_near(loaded.pixels, (137, 137, 137))
    assert loaded.notices[0].startswith("colours converted from")


def test_profiles_of_16_bits_keep_them() -> None:
    pytest.importorskip("imagecodecs")
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64, 1).repeat(3, axis=2) * 16
    data = png(ramp, (b"iCCP", b"x\0\0" + zlib.compress(profile(b"curv" + bytes(8)))))
    loaded = read_image(data)
    light = ramp / 65535
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    assert abs(loaded.pixels / 65535 - expected).max() < 1 / 1000
    assert len(np.unique(loaded.pixels)) > 4000


def test_a_profile_of_jpeg_2000() -> None:
    """Pillow writes none: the box of the colours is exchanged."""
    buffer = io.BytesIO()
    Image.fromarray(flat()).save(buffer, "JPEG2000", irreversible=False)
    data = buffer.getvalue()
    old = struct.pack(">I4s", 15, b"colr") + bytes(inside(data, b"jp2h", b"colr"))
    assert data.count(old) == 1
    new = struct.pack(">I4s", 11 + len(profile()), b"colr") + b"\2\0\0" + profile()
    header = struct.pack(">I4s", 8 + len(bytes(inside(data, b"jp2h"))), b"jp2h")
    grown = struct.pack(">I4s", 8 + len(bytes(inside(data, b"jp2h"))) - 15 + len(new), b"jp2h")
    loaded = read_image(data.replace(old, new).replace(header, grown))
    assert is_near(loaded.pixels, P3)
    assert loaded.notices == ("colours converted from sRGB built-in to sRGB",)


def test_a_profile_counts_before_numbers_in_avif() -> None:
    buffer = io.BytesIO()
    Image.fromarray(flat()).save(
        buffer, "AVIF", quality=100, subsampling="4:4:4", icc_profile=profile()
    )
    assert is_near(read_image(buffer.getvalue()).pixels, P3)
    assert any(kind == b"meta" for kind, _ in boxes(buffer.getvalue()))


def test_a_jpeg_xl_with_a_profile_is_refused() -> None:
    """As one that was made of a JPEG with a profile has; this header says so, and has no picture."""
    header = "1" + bits_of(1, 5) + bits_of(1, 3) + "0" + "0" + "0" + "00" + "1" + "00" + "0"
    header += "0" + "1" + "00"
    header += "0" * (-len(header) % 8)
    whole = bytes(int(header[n : n + 8][::-1], 2) for n in range(0, len(header), 8))
    assert read_header(b"\xff\x0a" + whole).has_profile
    pytest.importorskip("imagecodecs")
    with pytest.raises(InputImageError, match="ICC profile"):
        read_image(b"\xff\x0a" + whole)


@pytest.mark.parametrize("shape", [(8, 16, 3), (9, 31, 3), (300, 2000), (5, 7, 4), (1, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_header_of_jpeg_xl(shape: tuple[int, ...], dtype: Any) -> None:
    codecs = pytest.importorskip("imagecodecs")
    for is_lossless in (True, False):
        data = codecs.jpegxl_encode(np.zeros(shape, dtype), lossless=is_lossless)
        assert read_header(data).size == shape[:2]
