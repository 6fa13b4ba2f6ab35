"""Picture files that we write: exact where the format is, with a note that reads back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import ExifTags, Image

from auravae_cli.errors import OutputError
from auravae_cli.images.read import read_image
from auravae_cli.images.write import WRITABLE, picture_bytes, read_provenance

PIXELS = np.random.default_rng(0).integers(0, 255, (17, 23, 3), np.uint8, endpoint=True)
DEEP = np.random.default_rng(0).integers(0, 65535, (17, 23, 3), np.uint16, endpoint=True)
NOTE: dict[str, Any] = {"latent": "ab" * 32, "seed": 3, "bits": 8, "nested": {"ü": [1, None]}}


@pytest.mark.parametrize("suffix", [*WRITABLE, ".PNG", ".JpG"])
def test_the_note_reads_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(picture_bytes(PIXELS, suffix, provenance=NOTE))
    assert read_provenance(path) == NOTE
    path.write_bytes(picture_bytes(PIXELS, suffix))
    assert read_provenance(path) is None


def test_the_note_of_16_bit_png_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(picture_bytes(DEEP, ".png", provenance=NOTE))
    assert read_provenance(path) == NOTE
    np.testing.assert_array_equal(read_image(path.read_bytes()).pixels, DEEP)


def test_no_note_in_what_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    assert read_provenance(path) is None
    path.write_bytes(b"text")
    assert read_provenance(path) is None
    tags = Image.Exif()
    for comment in (b"ASCII\0\0\0by hand", b"ASCII\0\0\0[1]", b"UNICODE\0\xff\xfe"):
        tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        Image.fromarray(PIXELS).save(path, exif=tags.tobytes())
        assert read_provenance(path) is None


def test_every_file_names_the_program() -> None:
    for suffix in WRITABLE:
        with Image.open(io.BytesIO(picture_bytes(PIXELS, suffix))) as image:
            assert image.getexif()[ExifTags.Base.Software].startswith("auravae ")
            assert image.format == WRITABLE[suffix]


@pytest.mark.parametrize(("suffix", "quality"), [(".png", 95), (".tif", 95), (".webp", 100)])
def test_lossless_formats_are_exact(suffix: str, quality: int) -> None:
    data = picture_bytes(PIXELS, suffix, quality=quality)
    np.testing.assert_array_equal(read_image(data).pixels, PIXELS)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_quality_decides_size_and_likeness(suffix: str) -> None:
    files = [picture_bytes(PIXELS, suffix, quality=quality) for quality in (10, 50, 95)]
    errors = [np.abs(read_image(f).pixels.astype(float) - PIXELS).mean() for f in files]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert errors[0] > errors[1] > errors[2]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_16_bit_png_is_exact(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 1 << 16, (height, width, 3), np.uint16)
    np.testing.assert_array_equal(read_image(picture_bytes(pixels, ".png")).pixels, pixels)


def test_equal_pictures_give_equal_bytes() -> None:
    for suffix in WRITABLE:
        reordered = dict(reversed(NOTE.items()))
        first = picture_bytes(PIXELS, suffix, provenance=NOTE)
        assert first == picture_bytes(PIXELS, suffix, provenance=reordered)


@pytest.mark.parametrize("suffix", [".gif", ".exe", "png", ".png.bak"])
def test_other_suffixes_are_refused(suffix: str) -> None:
    with pytest.raises(OutputError, match=f"cannot write '{suffix}': expected one of .png, .jpg"):
        picture_bytes(PIXELS, suffix)


def test_a_name_without_suffix_is_refused() -> None:
    with pytest.raises(OutputError, match="cannot write 'a name without suffix'"):
        picture_bytes(PIXELS, "")


@pytest.mark.parametrize("suffix", sorted(set(WRITABLE) - {".png"}))
def test_16_bits_need_png(suffix: str) -> None:
    with pytest.raises(OutputError, match=f"{suffix} cannot hold 16 bits .* expected .png"):
        picture_bytes(DEEP, suffix)


def test_a_picture_too_long_for_webp_is_refused() -> None:
    longest = np.zeros((1, 16383, 3), np.uint8)
    assert read_image(picture_bytes(longest, ".webp")).pixels.shape == longest.shape
    with pytest.raises(OutputError, match=r"WEBP cannot hold .* 16384 x 1 .*; write \.png"):
        picture_bytes(np.zeros((1, 16384, 3), np.uint8), ".webp")
