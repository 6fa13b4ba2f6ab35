"""More than 8 bits, and every layout of samples: white stays white, and nothing is lost unsaid."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from auravae_cli.errors import InputImageError
from auravae_cli.images.read import from_pillow, read_image, read_size
from tests.images.making import packed_tiff, png, steps, tiff

FLOAT = "floating-point values taken for levels of 0 to 1"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("is_planar", [False, True])
def test_rgb_tiffs_of_16_bits(is_planar: bool, compression: str | None, order: str) -> None:
    values = steps().transpose(2, 0, 1) if is_planar else steps()
    plan = "separate" if is_planar else "contig"
    data = tiff(
        values, photometric="rgb", planarconfig=plan, compression=compression, byteorder=order
    )
    loaded = read_image(data)
    np.testing.assert_array_equal(loaded.pixels, steps())
    assert loaded.notices == ()


def test_a_planar_tiff_of_8_bits() -> None:
    planes = steps(np.uint8).transpose(2, 0, 1)
    data = tiff(planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(data).pixels, steps(np.uint8))


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("is_rgb", [False, True])
def test_lzw(is_rgb: bool, predictor: bool) -> None:
    pytest.importorskip("imagecodecs")
    values = steps() if is_rgb else steps()[..., 0]
    kind = "rgb" if is_rgb else "minisblack"
    data = tiff(values, photometric=kind, compression="lzw", predictor=predictor)
    np.testing.assert_array_equal(read_image(data).pixels[..., 0], steps()[..., 0])


def test_without_the_extra_what_takes_it_is_named(tmp_path: Path) -> None:
    """tifffile looks for imagecodecs once, so this takes another process."""
    codecs = pytest.importorskip("imagecodecs")
    for name, options in (("lzw", {"compression": "lzw"}), ("zip", {"compression": "zlib"})):
        (tmp_path / name).write_bytes(tiff(steps(), photometric="rgb", predictor=True, **options))
    (tmp_path / "packed").write_bytes(packed_tiff(steps() >> 4, 12))
    (tmp_path / "grey").write_bytes(
        tiff(steps()[..., 0], photometric="minisblack", compression="lzw")
    )
    (tmp_path / "jxl").write_bytes(codecs.jpegxl_encode(steps(), lossless=True))
    program = """
import sys, pathlib
sys.modules["imagecodecs"] = None
from auravae_cli.errors import InputImageError
from auravae_cli.images.read import read_image
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        print(path.name, read_image(path.read_bytes()).pixels[2, -3].tolist())
    except InputImageError as error:
        print(path.name, error)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    install = "to read it, pip install imagecodecs pillow-heif"
    assert said == [
        "grey [40000, 40000, 40000]",  # Pillow reads it
        f"jxl a JPEG XL picture: {install}",
        f"lzw a TIFF of 16 bits, compression LZW: {install}",
        f"packed a TIFF of 12 bits, compression NONE: {install}",
        "zip [40000, 20000, 10000]",
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(dtype: type) -> None:
    values = steps(dtype)[..., 0]
    loaded = read_image(tiff(values, photometric="miniswhite"))
    np.testing.assert_array_equal(loaded.pixels[..., 1], np.iinfo(dtype).max - values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_packed_tiffs_reach_white(channels: int, bits: int, order: str) -> None:
    pytest.importorskip("imagecodecs")
    values = np.random.default_rng(0).integers(0, 2**bits, (5, 6, channels))
    values[0, 0], values[1, 1] = 0, 2**bits - 1
    loaded = read_image(packed_tiff(values, bits, order))
    expected = np.rint(values * (65535 / (2**bits - 1)))
    np.testing.assert_array_equal(loaded.pixels, np.broadcast_to(expected, (5, 6, 3)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("is_rgb", [False, True])
def test_floating_point_tiffs(is_rgb: bool, dtype: type) -> None:
    levels = (steps() / 65535).astype(dtype)
    values = levels if is_rgb else levels[..., 0]
    loaded = read_image(tiff(values, photometric="rgb" if is_rgb else "minisblack"))
    expected = np.rint(levels.astype(np.float64) * 65535)
    np.testing.assert_array_equal(loaded.pixels[..., 0], expected[..., 0])
    assert loaded.notices == (FLOAT,)


@pytest.mark.parametrize("bad", [-0.5, 1.5, np.nan])
def test_floating_point_rgb_out_of_range(bad: float) -> None:
    values = np.full((4, 4, 3), bad, np.float32)
    with pytest.raises(InputImageError, match="floating-point picture with values beyond 0 to 1"):
        read_image(tiff(values, photometric="rgb"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("colours", ["minisblack", "rgb"])
def test_alpha_in_tiffs(colours: str, kind: str, dtype: type) -> None:
    top = np.iinfo(dtype).max
    shade = steps(dtype) // 2
    shade = shade if colours == "rgb" else shade[..., :1]
    alpha = np.full((16, 16, 1), top // 2 + 1, dtype)
    data = tiff(
        np.concatenate([shade, alpha], axis=-1),
        photometric=colours,
        extrasamples=[kind],
        planarconfig="contig",
    )
    weight = (top // 2 + 1) / top
    front = shade * weight if kind == "unassalpha" else shade.astype(float)
    expected = np.rint(front + top * (1 - weight))
    loaded = read_image(data)
    np.testing.assert_array_equal(loaded.pixels, np.broadcast_to(expected, (16, 16, 3)))
    assert loaded.notices == ("alpha composited on white",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lab(dtype: type) -> None:
    """L* 50, a* 50, b* -30 of D50 is (180, 81, 172) in sRGB, as littleCMS has it."""
    unit = 1 if dtype == np.uint8 else 256
    values = np.empty((8, 8, 3), dtype)
    values[..., 0] = round(np.iinfo(dtype).max * 50 / 100)
    values[..., 1:] = np.array([50 * unit, -30 * unit], f"i{unit // 256 + 1}").view(dtype)
    loaded = read_image(tiff(values, photometric="cielab"))
    found = loaded.pixels[0, 0] / (np.iinfo(dtype).max / 255)
    assert abs(found - [180, 81, 172]).max() <= 1
    assert len(loaded.notices) == 1


def test_16_bit_cmyk_says_what_is_lost() -> None:
    values = np.full((8, 8, 4), 30000, np.uint16)
    loaded = read_image(tiff(values, photometric="separated"))
    assert "16-bit CMYK read at 8 bits" in loaded.notices


def test_signed_samples_are_refused() -> None:
    with pytest.raises(InputImageError, match="signed samples"):
        read_image(tiff(np.zeros((4, 4), np.int16), photometric="minisblack"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("is_rgb", [False, True])
def test_orientations_of_16_bit_tiffs_by_every_reader(is_rgb: bool, orientation: int) -> None:
    grey = np.arange(15, dtype=np.uint16).reshape(3, 5) * 4000
    values = np.stack([grey] * 3, axis=-1) if is_rgb else grey
    kind = "rgb" if is_rgb else "minisblack"
    data = tiff(values, photometric=kind, extratags=[(274, 3, 1, orientation, True)])
    loaded = read_image(data)
    upright = Image.fromarray((grey // 1000).astype(np.uint8))
    upright.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(upright)).astype(int) * 1000
    np.testing.assert_array_equal(loaded.pixels[..., 2], expected)
    assert loaded.exif_orientation == orientation
    assert read_size(io.BytesIO(data)) == loaded.pixels.shape[:2]
    if not is_rgb:  # of RGB at 16 bits Pillow has 8
        np.testing.assert_array_equal(
            from_pillow(Image.open(io.BytesIO(data))).pixels, loaded.pixels
        )


# PNG and PPM


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_16_bit_png_is_exact(channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    loaded = read_image(png(values))
    expected = values[..., : 1 if channels < 3 else 3]
    np.testing.assert_array_equal(loaded.pixels, np.broadcast_to(expected, (5, 7, 3)))
    assert loaded.notices == ()


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_16_bit_pngs(channels: int) -> None:
    values = np.full((3, 3, channels), 30000, np.uint16)
    values[..., -1] = 13107
    loaded = read_image(png(values), background="black")
    assert (loaded.pixels == 6000).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour(channels: int, dtype: type) -> None:
    values = np.broadcast_to(steps(dtype)[..., :1], (16, 16, channels))
    clear = (b"tRNS", struct.pack(f">{channels}H", *[0] * channels))
    loaded = read_image(png(values, clear))
    assert (loaded.pixels[:, :8] == np.iinfo(dtype).max).all()
    np.testing.assert_array_equal(loaded.pixels[:, 8:], steps(dtype)[:, 8:, :1].repeat(3, axis=2))


@pytest.mark.parametrize("top", [256, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_deep_pnm(kind: str, top: int) -> None:
    count = 3 if kind in ("P3", "P6") else 1
    values = np.random.default_rng(2).integers(0, top + 1, (3, 5, count))
    values[0, 0] = top
    body = (
        values.astype(">u2").tobytes()
        if kind in ("P5", "P6")
        else str(values.ravel())[1:-1].encode()
    )
    loaded = read_image(f"{kind}\n# a comment\n5 3\n{top}\n".encode() + body)
    expected = np.rint(values * (65535 / top))
    np.testing.assert_array_equal(loaded.pixels, np.broadcast_to(expected, (3, 5, 3)))


@pytest.mark.parametrize("body", [b"1 2 3", b"1 2 3 70000", b"1 2 3 x", b"1 2 3 -4"])
def test_a_damaged_deep_pnm(body: bytes) -> None:
    with pytest.raises(InputImageError, match="damaged"):
        read_image(b"P2\n2 2\n65535\n" + body)


def test_a_16_bit_pnm_that_is_cut_off() -> None:
    with pytest.raises(InputImageError, match="damaged"):
        read_image(b"P5\n4 4\n65535\n" + bytes(31))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_is_cut_off(compression: str | None) -> None:
    data = tiff(steps(), photometric="rgb", compression=compression)
    with pytest.raises(InputImageError, match="damaged"):
        read_image(data[:-10])


# With the extra


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_jpeg_2000(monkeypatch: pytest.MonkeyPatch, channels: int, bits: int) -> None:
    """Pillow 13.0.0 wraps the highest samples: its white is black."""
    codecs = pytest.importorskip("imagecodecs")
    values = np.random.default_rng(3).integers(0, 2**bits, (16, 16, channels)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    data = codecs.jpeg2k_encode(values.squeeze(), bitspersample=bits, reversible=True, level=0)
    expected = np.rint(values * (65535 / (2**bits - 1)))
    np.testing.assert_array_equal(read_image(data).pixels, np.broadcast_to(expected, (16, 16, 3)))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(
        InputImageError, match=rf"JPEG 2000 picture of {bits} bits.*imagecodecs pillow-heif"
    ):
        read_image(data)


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    codecs = pytest.importorskip("imagecodecs")
    values = steps() >> (16 - bits)
    data = codecs.avif_encode(values, bitspersample=bits, level=100)
    expected = np.rint(values * (65535 / (2**bits - 1)))
    loaded = read_image(data)
    assert abs(loaded.pixels - expected).max() <= 65535 / (2**bits - 1)
    assert len(np.unique(loaded.pixels)) == 4
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    loaded = read_image(data)
    assert loaded.pixels.dtype == np.uint8
    assert loaded.notices == (
        f"{bits} bits read at 8; to read all, pip install imagecodecs pillow-heif",
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_of_12_bits(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    codecs = pytest.importorskip("imagecodecs")
    values = np.ascontiguousarray((steps() >> 4)[..., :channels])
    data = codecs.jpeg8_encode(values.squeeze(), bitspersample=12, level=100)
    loaded = read_image(data)
    expected = np.broadcast_to(np.rint(values * (65535 / 4095)), (16, 16, 3))
    assert abs(loaded.pixels[:, [2, -3]] - expected[:, [2, -3]]).max() <= 64
    assert read_size(io.BytesIO(data)) == (16, 16)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(
        InputImageError, match=r"a JPEG of 12 bits a sample.*imagecodecs pillow-heif"
    ):
        read_image(data)
