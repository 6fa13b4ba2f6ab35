"""Picture files to pixels. Every conversion that changes colours is stated in a notice.

The order is: check the size, decode, bring to RGB (16 bits a channel are kept where the file has
them), convert an embedded ICC profile to sRGB, composite alpha on a background, apply the EXIF
orientation.
"""

from __future__ import annotations

import hashlib
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (  # the plugins register the formats that Pillow would else look for, slowly
    AvifImagePlugin as AvifImagePlugin,
    BmpImagePlugin as BmpImagePlugin,
    ExifTags,
    GifImagePlugin as GifImagePlugin,
    Image,
    ImageCms,
    ImageColor,
    ImageFile,
    Jpeg2KImagePlugin as Jpeg2KImagePlugin,
    JpegImagePlugin as JpegImagePlugin,
    PngImagePlugin as PngImagePlugin,
    PpmImagePlugin as PpmImagePlugin,
    TgaImagePlugin as TgaImagePlugin,
    TiffImagePlugin as TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin as WebPImagePlugin,
)

from auravae_cli.defaults import MAX_PIXELS
from auravae_cli.errors import InputImageError
from auravae_cli.machine.memory import shortage

# Raster formats alone: nothing that runs an interpreter (EPS) or has no pixels of its own (PDF).
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "TGA")

_BAND_PIXELS = 1 << 20  # that are converted at once

Pixels = NDArray[Any]  # [H, W, 3], uint8 or uint16


@dataclass(frozen=True)
class LoadedImage:
    """A picture as read.

    ``pixels`` is sRGB [H, W, 3], uint8, or uint16 from a file of 16 bits a channel. ``sha256`` is
    that of the file's bytes, ``exif_orientation`` the tag (1 to 8) that has been applied.
    """

    pixels: Pixels
    sha256: str
    exif_orientation: int
    notices: tuple[str, ...]


def read_image(
    data: bytes,
    *,
    background: str = "white",
    max_pixels: int = MAX_PIXELS,
) -> LoadedImage:
    """Decode a picture from a file's bytes.

    Args:
        data: the whole file, in any of `FORMATS`; the content decides, never a name.
        background: what alpha is composited on: a colour as Pillow spells it (``white``, ``#204060``).
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        InputImageError: the bytes are no picture, or a damaged, oversized or undefined one.
    """
    if not data:
        raise InputImageError("the file is empty: expected a picture")
    with _opened(io.BytesIO(data), max_pixels) as image:
        return _load(image, data, background)


def read_size(source: Path | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """The (height, width) of a picture that stands upright, from its header. Raises InputImageError."""
    with _opened(source, max_pixels) as image:
        turned = not _turns_itself(image) and _exif_orientation(image, []) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def _opened(source: Path | BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header is read, and whose size is allowed. Raises InputImageError."""
    with _without_pillows_limit:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come again, as notices, with the pixels
                image = Image.open(source, formats=FORMATS)
            with image:
                _check_size(image, max_pixels)
                yield image
        except InputImageError:
            raise
        except UnidentifiedImageError:
            raise InputImageError(
                f"not a picture: {_start(source)}expected one of {', '.join(FORMATS)}"
            ) from None
        except MemoryError:
            raise InputImageError("not enough memory to decode the picture") from None
        except Exception as error:  # decoders meet damaged bytes with errors of every type
            if isinstance(source, Path) and isinstance(error, OSError) and error.strerror:
                raise InputImageError(f"cannot be read: {error.strerror}") from error
            raise InputImageError(
                f"damaged picture ({error or type(error).__name__}): expected a complete file"
            ) from error


def _start(source: Path | BinaryIO) -> str:
    if not isinstance(source, io.BytesIO):
        return ""
    return f"the bytes start with {source.getvalue()[:8]!r}; "


def count_pixels(file: bytes | Path) -> int:
    """The number of pixels that a picture file claims to have; 0 where it is none. Fast."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    with warnings.catch_warnings(), _without_pillows_limit:
        warnings.simplefilter("ignore")
        try:
            with Image.open(source, formats=FORMATS) as image:
                return image.width * image.height
        except Exception:  # decoders meet damaged bytes with errors of every type
            return 0


def from_pillow(image: Image.Image, *, background: str = "white") -> LoadedImage:
    """A Pillow image of any mode, treated like the file that it might have come from.

    Its ``sha256`` is that of the pixels. Raises InputImageError where its colours are undefined.
    """
    try:
        return _load(image, None, background)
    except (OSError, ValueError) as error:
        raise InputImageError(f"cannot bring mode {image.mode} to RGB: {error}") from error


def _load(image: Image.Image, data: bytes | None, background: str) -> LoadedImage:
    notices: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        turns_itself = _turns_itself(image)
        orientation = _exif_orientation(image, notices) if turns_itself else 1
        deep = _read_16_bit(image, data, notices)
        image.load()  # before the EXIF data are asked for: what is wrong with them costs no picture
        if not turns_itself:  # asked for now, since the tag may stand behind a PNG's pixels
            orientation = _exif_orientation(image, notices)
        pixels = _to_srgb(image, deep, background, notices)
        if not turns_itself:
            pixels = _turn_upright(pixels, orientation)
        _note_frames(image, notices)
    notices += sorted({f"the decoder warns: {warning.message}" for warning in caught})
    return LoadedImage(
        pixels=pixels,
        sha256=hashlib.sha256(pixels.tobytes() if data is None else data).hexdigest(),
        exif_orientation=orientation,
        notices=tuple(notices),
    )


def to_unit(pixels: Pixels, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """uint8 or uint16 [H, W, 3] => float32 [3, H, W] in [-1, 1], into ``out`` if there is one."""
    top = np.float32(np.iinfo(pixels.dtype).max)
    if out is None:
        out = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel in range(3):  # a plane at a time, which stays in the cache
        plane = out[channel]
        # Divided first, so that v of 255 and 257 v of 65535 give the same value.
        np.divide(pixels[..., channel], top, out=plane, dtype=np.float32)
        plane *= 2
        plane -= 1
    return out


def to_8_bit(pixels: Pixels) -> Pixels:
    """uint8 or uint16 => uint8 of the same shape, rounded to nearest."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def from_unit(image: NDArray[np.float32], bits: int = 8) -> Pixels:
    """float [3, H, W], clipped to [-1, 1] => uint8 (or uint16) [H, W, 3], rounded to nearest."""
    top, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    scaled = np.clip((image.astype(np.float32) + 1) / 2, 0, 1) * top
    return np.ascontiguousarray(np.rint(scaled).astype(dtype).transpose(1, 2, 0))


class _WithoutPillowsLimit:
    """Lifts Pillow's own guards, global ones: ours is checked as soon as a size is known.

    A PNG's texts and its profile may be as large each as Pillow allows all of them to be: a
    workflow or a printer's profile is larger than the megabyte that it allows one.
    Threads overlap: the first to come lifts them, the last to leave puts them back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)
                Image.MAX_IMAGE_PIXELS = None
                PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = self._before


_without_pillows_limit = _WithoutPillowsLimit()


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise InputImageError(
            f"{image.width} x {image.height} pixels: more than the limit of {max_pixels}; "
            "raise it with --max-pixels if you trust the file"
        )
    if reason := shortage(image.height, image.width):
        raise InputImageError(reason)


def _note_frames(image: Image.Image, notices: list[str]) -> None:
    """Counting them would take as long as there are many."""
    several = getattr(image, "is_animated", False)
    if several and image.format != "MPO":  # a phone's depth map is no second picture
        notices.append("first of several frames used")


def _to_srgb(
    image: Image.Image, deep: Pixels | None, background: str, notices: list[str]
) -> Pixels:
    """The pixels as [H, W, 3] in sRGB, opaque; ``deep`` where they have 16 bits."""
    profile = image.info.get("icc_profile")
    if deep is None:
        return _to_srgb_of_8_bits(image, profile, background, notices)
    colours = deep[..., :3]
    if profile and not _is_srgb(profile):
        convert = _by_profile("RGB", profile, notices)
        if convert is not None:  # an unusable profile costs no bits
            notices.append("16-bit colours reduced to 8 bits to convert the ICC profile")
            for rows in _bands(colours.shape):
                narrow = np.rint(colours[rows] / 257).astype(np.uint8)
                colours[rows] = np.asarray(convert(Image.fromarray(narrow))).astype(np.uint16) * 257
    if deep.shape[2] == 4 and deep[..., 3].min() < 65535:
        notices.append(f"alpha composited on {background}")
        for rows in _bands(colours.shape):
            colours[rows] = _composite(colours[rows], deep[rows, :, 3:], background)
    return np.ascontiguousarray(colours)


def _to_srgb_of_8_bits(
    image: Image.Image, profile: bytes | None, background: str, notices: list[str]
) -> Pixels:
    """A band at a time: a whole picture in every form on the way would take ten times its memory."""
    if image.mode == "La":
        image = image.convert("LA")
    is_clear, mode = image.has_transparency_data, image.mode
    if is_clear or mode == "P":
        mode = "RGB"
    convert = _by_profile(mode, profile, notices)
    if convert is None and mode in ("CMYK", "LAB"):
        notices.append(f"{mode} colours converted to sRGB without a profile")
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    is_seen_through = False
    for rows in _bands(pixels.shape):
        is_whole = rows == slice(0, image.height)
        part = image if is_whole else image.crop((0, rows.start, image.width, rows.stop))
        alpha = None
        if is_clear:
            part = part.convert("RGBA")
            alpha = np.asarray(part.getchannel("A"))[..., None]
        if part.mode != mode:
            part = part.convert(mode)
        if convert is not None:
            part = convert(part)
        colours = np.asarray(part.convert("RGB"))
        if alpha is not None and alpha.min() < 255:
            is_seen_through = True
            colours = _composite(colours, alpha, background)
        pixels[rows] = colours
    if is_seen_through:
        notices.append(f"alpha composited on {background}")
    return pixels


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """All rows of [H, W, C], some at a time."""
    at_once = max(1, _BAND_PIXELS // shape[1])
    for start in range(0, shape[0], at_once):
        yield slice(start, min(shape[0], start + at_once))


def _read_16_bit(image: Image.Image, data: bytes | None, notices: list[str]) -> Pixels | None:
    """[H, W, 3 or 4] as uint16 where the file has more than 8 bits a channel, else None.

    ``image`` must not be loaded yet: loading forgets how the file stores its samples.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = np.asarray(image)
        if image.mode == "F":
            if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
                raise InputImageError("floating-point picture with values beyond 0 to 1")
            grey = np.rint(grey * 65535)
        elif grey.min() < 0 or grey.max() > 65535:
            raise InputImageError("32-bit integer picture with values beyond 0 to 65535")
        return np.repeat(grey.astype(np.uint16)[..., None], 3, axis=2)
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    modes = [mode for mode in (_raw_mode(tile.args) for tile in tiles) if ";16" in mode]
    if any(mode.startswith("LA") for mode in modes):
        notices.append("16-bit grey with alpha read at 8 bits")
    if data is None or not any(mode.startswith("RGB") for mode in modes):
        return None
    # Pillow keeps the high byte of each 16-bit sample. Told the opposite byte order, it keeps
    # the low byte: two decodes give all sixteen bits.
    samples: Pixels = np.asarray(image).astype(np.uint16)
    samples <<= 8
    with Image.open(io.BytesIO(data), formats=FORMATS) as swapped:
        swapped.tile = [tile._replace(args=_swap_bytes(tile.args)) for tile in swapped.tile]
        samples |= np.asarray(swapped)
    return samples


def _raw_mode(args: Any) -> str:
    return str(args[0] if isinstance(args, tuple) else args)


def _swap_bytes(args: Any) -> Any:
    mode, order = _raw_mode(args).split(";16")
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    swapped = f"{mode};16{'B' if little else 'L'}"
    return (swapped, *args[1:]) if isinstance(args, tuple) else swapped


def _turns_itself(image: Image.Image) -> bool:
    """Whether Pillow applies the EXIF orientation as it loads, and then forgets it."""
    return image.format == "TIFF"


def _exif_orientation(image: Image.Image, notices: list[str]) -> int:
    """The tag, 1 to 8; 1 where there is none, or none that means anything."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # the pixels are sound, whatever its EXIF data may be
        notices.append(f"EXIF data ignored, upright assumed ({error or type(error).__name__})")
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to [H, W, C], as `ImageOps.exif_transpose` does at 8 bits."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


@lru_cache(64)
def _is_srgb(profile: bytes) -> bool:
    """Whether colours stay as they are, to a step of 8 bits: names say little (there is "linear sRGB")."""
    steps = range(0, 256, 15)
    mixed = np.array(list(product(steps, steps, steps)), np.uint8)[None]
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = ImageCms.profileToProfile(
            Image.fromarray(mixed), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    return found is not None and bool(np.abs(np.asarray(found).astype(int) - mixed).max() <= 1)


def _by_profile(
    mode: str, profile: bytes | None, notices: list[str]
) -> Callable[[Image.Image], Image.Image] | None:
    """What converts pictures of a mode to sRGB by the embedded profile; None where they stay.

    They also do, with a notice, where the profile is unusable.
    """
    if not profile or _is_srgb(profile):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        ImageCms.applyTransform(Image.new(mode, (1, 1)), transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        notices.append(f"colour profile ignored, sRGB assumed ({error})")
        return None
    name = ImageCms.getProfileDescription(source).strip() or "embedded profile"
    notices.append(f"colours converted from {name} to sRGB")
    return lambda image: cast(Image.Image, ImageCms.applyTransform(image, transform))


def _composite(colours: Pixels, alpha: Pixels, background: str) -> Pixels:
    """Blend on the background as browsers do, on the sRGB values."""
    top = float(np.iinfo(colours.dtype).max)
    behind = np.array(ImageColor.getrgb(background)[:3]) * (top / 255)
    weight = alpha / float(np.iinfo(alpha.dtype).max)
    blended = colours * weight + behind * (1 - weight)
    return np.rint(blended).astype(colours.dtype)
