"""Pictures that Pillow opens: most of them, at 8 bits; deeper ones by `deep_samples`."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImagePalette

from auravae_cli.images import avif, jpeg2000, png
from auravae_cli.images.alpha import bands, composite
from auravae_cli.images.colour import Colours
from auravae_cli.images.deep import deep_samples
from auravae_cli.images.icc import Convert, by_profile
from auravae_cli.images.orientation import exif_orientation
from auravae_cli.images.samples import Pixels, to_srgb

_COLOUR_MAP = 320  # a TIFF tag
_COUNTED = ("PNG", "WEBP", "AVIF")  # formats whose header has the number of frames


class PillowPicture:
    """A Pillow image, with the bytes of its file if there is one.

    ``frame`` has the notices about a TIFF's frame.
    """

    def __init__(
        self, image: Image.Image, data: bytes | None = None, frame: tuple[str, ...] | None = None
    ) -> None:
        self._image, self._data, self._frame = image, data, frame
        self.stands_upright = image.format == "TIFF"  # is turned as it loads, and forgets the tag
        self._tag = exif_orientation(image, []) if self.stands_upright else None
        self.size = (image.height, image.width)
        self._is_decoded = False

    def orientation(self, notices: list[str]) -> int:
        """Return the orientation in the file, from its header if the picture is not decoded yet."""
        if self._tag is not None:
            return self._tag
        image = self._image
        is_open_png = image.format == "PNG" and not self._is_decoded and image.fp is not None  # type: ignore[attr-defined]
        decodes = not is_open_png or png.may_have_tags_behind(image.fp)  # type: ignore[attr-defined]
        return exif_orientation(image, notices, decodes=decodes)

    def pixels(self, background: str, notices: list[str]) -> Pixels:
        """Return opaque sRGB [H, W, 3]."""
        image, self._is_decoded = self._image, True
        if image.format == "PNG" and self._data is not None:
            png.check_pixels(self._data)
        deep = deep_samples(image, self._data, notices)
        if deep is not None:
            image.load()  # also finds damage behind what was read
            pixels = to_srgb(deep, background, notices)
        else:
            _mend_palette(image)
            image.load()
            image = _tga_alpha(image, self._data, notices)
            pixels = _pixels_of_8_bits(image, self._colours(), background, notices)
        notices += _frames(self._image) if self._frame is None else self._frame
        return pixels

    def _colours(self) -> Colours:
        icc, data = self._image.info.get("icc_profile") or None, self._data
        if data is None:
            return Colours(icc=icc)
        if self._image.format == "PNG":
            return png.colours(data, icc)
        if self._image.format == "AVIF":
            return avif.colours(data)
        return jpeg2000.colours(data) if self._image.format == "JPEG2000" else Colours(icc=icc)


def _frames(image: Image.Image) -> list[str]:
    """Note the frames; counting many takes long if the header does not state their number."""
    if not getattr(image, "is_animated", False) or image.format == "MPO":
        return []  # a phone's depth map is no second picture
    count = image.n_frames if image.format in _COUNTED else "several"  # type: ignore[attr-defined]
    return [f"first of {count} frames used"]


def _mend_palette(image: Image.Image) -> None:
    """Fix a TIFF's colour map of 16 bits that holds 8-bit values, as libtiff's own programs do."""
    if image.format != "TIFF" or image.mode != "P":
        return
    colour_map = image.tag_v2.get(_COLOUR_MAP)  # type: ignore[attr-defined]
    if colour_map and 0 < max(colour_map) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colour_map))


def _tga_alpha(image: Image.Image, data: bytes | None, notices: list[str]) -> Image.Image:
    """Apply a TGA's alpha by its header, which Pillow ignores; at 16 bits Pillow also inverts the alpha."""
    if image.format != "TGA" or image.mode != "RGBA" or data is None:
        return image
    if data[17] & 15 == 0 and data[16] == 16:
        return image.convert("RGB")
    if data[16] == 16:
        image.putalpha(ImageChops.invert(image.getchannel("A")))
    if image.getchannel("A").getextrema() == (0, 0):
        notices.append("alpha ignored: the whole picture would be transparent")
        return image.convert("RGB")
    return image


def _pixels_of_8_bits(
    image: Image.Image, colours: Colours, background: str, notices: list[str]
) -> Pixels:
    """Convert in bands: a whole picture in every intermediate form would take ten times its memory."""
    if image.mode == "La":
        image = image.convert("LA")
    is_clear, mode = image.has_transparency_data, image.mode
    if is_clear or mode == "P":
        mode = "L" if mode in ("L", "LA") else "RGB"
    mode, convert = by_profile(mode, colours.icc, notices)
    if convert is None and mode in ("CMYK", "LAB"):
        notices.append(f"{mode} colours converted to sRGB without a profile")
    change = colours.change()
    if change is not None:
        notices.append(f"colours converted from {colours.name} to sRGB")
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    is_seen_through = False
    for rows in bands(pixels.shape):
        is_whole = rows == slice(0, image.height)
        part = image if is_whole else image.crop((0, rows.start, image.width, rows.stop))
        alpha = None
        if is_clear:
            part = part.convert("RGBA")
            alpha = np.asarray(part.getchannel("A"))[..., None]
        found = _opaque(part, mode, convert)
        if change is not None:
            found = change(found)
        if alpha is not None and alpha.min() < 255:
            is_seen_through = True
            found = composite(found, alpha, background)
        if is_whole:  # as in most cases: the decoded picture is not copied
            pixels = found
        else:
            pixels[rows] = found
    if is_seen_through:
        notices.append(f"alpha composited on {background}")
    return pixels


def _opaque(part: Image.Image, mode: str, convert: Convert | None) -> Pixels:
    """Return RGB [h, w, 3] of a picture without its alpha, converted to ``mode`` first."""
    if part.mode != mode:
        part = part.convert(mode)
    if convert is not None:
        part = convert(part)
    return np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
