"""Recognise a file by its first bytes: which reader takes it, or why none does."""

from __future__ import annotations

from auravae_cli.errors import InputImageError

TIFF, HEIF, JPEG_XL = "TIFF", "HEIF", "JPEG XL"
START_BYTES = 64  # that are inspected

_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_RAW = "a camera's raw file ({}): develop it to TIFF, PNG or JPEG first"
_DRAWN = "not a picture of pixels but {}: draw it as PNG first"
_OTHER = "{}: not read here; save it as PNG first"

# the first bytes => what the file is
_REFUSED = (
    (b"IIRO", _RAW.format("ORF")),
    (b"IIRS", _RAW.format("ORF")),
    (b"MMOR", _RAW.format("ORF")),
    (b"IIU\0", _RAW.format("RW2")),
    (b"FUJIFILMCCD-RAW", _RAW.format("RAF")),
    (b"FOVb", _RAW.format("X3F")),
    (b"%PDF", _DRAWN.format("a PDF document")),
    (b"%!PS", _DRAWN.format("PostScript (EPS)")),
    (b"\xc5\xd0\xd3\xc6", _DRAWN.format("PostScript (EPS)")),
    (b"8BPS", _OTHER.format("a Photoshop file (PSD)")),
    (b"gimp xcf", _OTHER.format("a GIMP file (XCF)")),
    (b"v/1\x01", _OTHER.format("OpenEXR, of high dynamic range")),
    (b"#?RADIANCE", _OTHER.format("Radiance HDR, of high dynamic range")),
    (b"#?RGBE", _OTHER.format("Radiance HDR, of high dynamic range")),
    (b"II\xbc\x01", _OTHER.format("JPEG XR")),
    (b"BPG\xfb", _OTHER.format("BPG")),
    (b"\0\0\x01\0", _OTHER.format("an icon (ICO)")),
    (b"DDS ", _OTHER.format("a texture (DDS)")),
    (b"P7\n", _OTHER.format("PAM")),
)


def recognise(start: bytes) -> str | None:
    """Return `TIFF`, `HEIF` or `JPEG_XL`; None leaves it to Pillow.

    Raises InputImageError for known but unsupported files, with what they are and what to do.
    """
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        if start[8:10] == b"CR":
            raise InputImageError(_RAW.format("CR2"))
        return TIFF
    if start[:2] == b"\xff\x0a" or start[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return JPEG_XL
    if start[4:8] == b"ftyp":
        return _of_brands(start)
    for first, what in _REFUSED:
        if start.startswith(first):
            raise InputImageError(what)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        raise InputImageError(_DRAWN.format("SVG or other XML"))
    if text.startswith((b"<!doctype", b"<html")):
        raise InputImageError("not a picture: a web page, which a server sent instead of one")
    return None


def _of_brands(start: bytes) -> str | None:
    size = int.from_bytes(start[:4], "big")
    brands = {start[place : place + 4] for place in (8, *range(16, min(size, len(start)) - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return None
    if brands & _HEIC_BRANDS or brands & {b"mif1", b"msf1"}:
        return HEIF
    if b"crx " in brands:
        raise InputImageError(_RAW.format("CR3"))
    raise InputImageError("not a picture: a film (MP4 or the like)")
