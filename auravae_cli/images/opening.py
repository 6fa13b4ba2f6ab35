"""Open a picture file, recognised by its first bytes, within the limits on sizes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import (  # the plugins register the formats that Pillow would else look for, slowly
    AvifImagePlugin as AvifImagePlugin,
    BmpImagePlugin as BmpImagePlugin,
    GifImagePlugin as GifImagePlugin,
    Image,
    Jpeg2KImagePlugin as Jpeg2KImagePlugin,
    JpegImagePlugin as JpegImagePlugin,
    PngImagePlugin as PngImagePlugin,
    PpmImagePlugin as PpmImagePlugin,
    QoiImagePlugin as QoiImagePlugin,
    TgaImagePlugin as TgaImagePlugin,
    TiffImagePlugin as TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin as WebPImagePlugin,
)

from auravae_cli.errors import InputImageError
from auravae_cli.files.kinds import START_BYTES, kind_of
from auravae_cli.images import recognise
from auravae_cli.images.decoder_warnings import decoder_warnings
from auravae_cli.images.picture import Picture
from auravae_cli.images.pillow_picture import PillowPicture
from auravae_cli.machine.memory import shortage

# Only raster formats: none that runs an interpreter (EPS) or has no pixels (PDF).
# Pillow reads these; TIFF together with tifffile. The extra ``pictures`` reads HEIC and JPEG XL.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "TGA", "QOI")
WITH_EXTRA = ("HEIC", "JPEG XL")

Source = bytes | Path | BinaryIO


@contextmanager
def opened(source: Source, max_pixels: int | None = None) -> Iterator[Picture]:
    """Yield a picture with its header read, of an allowed size. Raises InputImageError."""
    # warnings about the header come again, as notices, with the pixels
    with _without_pillows_limit, decoder_warnings(), ExitStack() as closing:
        try:
            picture = _open(source, closing)
            if max_pixels is not None:
                _check_size(picture, max_pixels)
            yield picture
        except InputImageError:
            raise
        except UnidentifiedImageError:
            raise InputImageError(_what_else(source)) from None
        except MemoryError:
            raise InputImageError("not enough memory to decode the picture") from None
        except Exception as error:  # decoders raise errors of every type on damaged bytes
            if isinstance(source, Path) and isinstance(error, OSError) and error.strerror:
                raise InputImageError(f"cannot be read: {error.strerror}") from error
            raise InputImageError(
                f"damaged picture ({error or type(error).__name__}): expected a complete file"
            ) from error


def _open(source: Source, closing: ExitStack) -> Picture:
    """Open a picture by its first bytes. Readers that few files need are imported for these."""
    if isinstance(source, Path):
        file: BinaryIO = closing.enter_context(source.open("rb"))
    else:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
    start = file.read(recognise.START_BYTES)
    if not start:
        raise InputImageError("the file is empty: expected a picture")
    file.seek(0)
    kind = recognise.recognise(start)
    if kind == recognise.HEIF:
        from auravae_cli.images.heif_picture import HeifPicture

        return HeifPicture(file)
    if kind == recognise.JPEG_XL:
        from auravae_cli.images.jpeg_xl_picture import JpegXlPicture

        return JpegXlPicture(file)
    data = source if isinstance(source, bytes) else None
    if kind == recognise.TIFF:
        return _open_tiff(file, data, closing)
    try:
        return PillowPicture(closing.enter_context(_by_pillow(file)), data)
    except UnidentifiedImageError:
        deeper = _open_deep_jpeg(file) if start[:2] == b"\xff\xd8" else None
        if deeper is None:
            raise
        return deeper


def _open_deep_jpeg(file: BinaryIO) -> Picture | None:
    from auravae_cli.images.jpeg_12 import Jpeg12Picture

    file.seek(0)
    return Jpeg12Picture.of(file.read())


def _open_tiff(file: BinaryIO, data: bytes | None, closing: ExitStack) -> Picture:
    from auravae_cli.images.tiff_frames import choose_frame, is_pillows
    from auravae_cli.images.tiff_picture import TiffPicture, tiff_file

    frame = choose_frame(closing.enter_context(tiff_file(file)))
    if frame.number is None or not is_pillows(frame.page):
        return TiffPicture(frame)
    file.seek(0)
    image = closing.enter_context(_by_pillow(file))
    image.seek(frame.number)
    return PillowPicture(image, data, frame.notices)


def _by_pillow(file: BinaryIO) -> Image.Image:
    return Image.open(file, formats=FORMATS)


def _check_size(picture: Picture, max_pixels: int) -> None:
    height, width = picture.size
    if width * height > max_pixels:
        raise InputImageError(
            f"{width} x {height} pixels: more than the limit of {max_pixels}; "
            "raise it with --max-pixels if you trust the file"
        )
    if reason := shortage(height, width):
        raise InputImageError(reason)


def refuse_other_kinds(data: bytes) -> None:
    """Raise InputImageError if these are the bytes of a file of another kind than pictures."""
    kind = kind_of(data[:START_BYTES])
    if kind is not None and not kind.is_picture:
        raise InputImageError(str(kind))


def _what_else(source: Source) -> str:
    """Return why a file is no picture: what it is, if that is known."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            start = file.read(START_BYTES)
    elif isinstance(source, bytes):
        start = source[:START_BYTES]
    else:
        source.seek(0)
        start = source.read(START_BYTES)
    refuse_other_kinds(start)
    return f"not a picture, or a damaged one: expected one of {', '.join(FORMATS + WITH_EXTRA)}"


class _WithoutPillowsLimit:
    """Disable Pillow's own global guards: ours is checked as soon as a size is known.

    A PNG's texts and its profile may each be as large as Pillow allows for all of them: a workflow or a
    printer's profile exceeds the megabyte that it allows for one.
    Threads overlap: the first one disables the guards, the last one restores them.
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
