r"""What a file is, by its first bytes, and which command takes it: for errors about files of a wrong kind.

>>> str(kind_of(b"\xff\xd8\xff\xe0\0\x10JFIF"))
'a JPEG picture: `auravae encode` makes a latent of it'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.files.mapping import open_regular

START_BYTES = 1 << 16  # that are inspected: names of tensors come after the metadata

_ENCODE = "`auravae encode` makes a latent of it"
_IMPORT = "`auravae import --from {}` makes latents of it"


@dataclass(frozen=True)
class Kind:
    """A kind of files: ``name`` with its article, and what to do with such a file."""

    name: str
    hint: str
    is_picture: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.hint}"


def _picture(name: str) -> Kind:
    return Kind(f"a {name} picture", _ENCODE, is_picture=True)


def _foreign(name: str, form: str) -> Kind:
    return Kind(name, _IMPORT.format(form))


LATENT = Kind(
    "a latent of auravae", "`auravae decode` makes a picture of it, `auravae info` describes it"
)
_TENSORS = Kind(
    "a safetensors file of other tensors",
    "`auravae import --from safetensors` makes latents of it; weights of a model go to --model",
)
_NPZ = _foreign("an archive of numpy arrays", "npz")
_OF_STORE = Kind("a file of a store", "name the store's folder instead")

# What a file begins with => what it is. The first pattern that fits decides.
_STARTS = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\xff\xd8\xff", _picture("JPEG")),
        (rb"\x89PNG\r\n\x1a\n", _picture("PNG")),
        (rb"GIF8", _picture("GIF")),
        (rb"RIFF....WEBP", _picture("WebP")),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", _picture("TIFF")),
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", _picture("JPEG XL")),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", _picture("JPEG 2000")),
        (rb"....ftyp(avif|avis)", _picture("AVIF")),
        (rb"....ftyp(hei|hev|mif1|msf1)", _picture("HEIC")),
        (rb"qoif", _picture("QOI")),
        (rb"BM....\0\0\0\0", _picture("BMP")),
        (rb"P[1-6Ff]\s", _picture("PNM")),
        (rb'.{8}\{.*"latent_tensor":', _foreign("a latent of ComfyUI", "comfyui")),
        (
            rb'.{8}\{.*"latents_(\d+x)?\d+x\d+_\w+":',
            _foreign("a latent of musubi-tuner", "musubi"),
        ),
        (rb'.{8}\{.*"auravae":', LATENT),  # as metadata, which copies for others have as well
        (rb'.{8}\{.*"latent":', _foreign("a latent of ai-toolkit", "ai-toolkit")),
        (rb".{8}\{", _TENSORS),
        (rb"\x93NUMPY", _foreign("a numpy array", "npy")),
        (rb"PK\x03\x04.{26}latents(_\d+x\d+)?\.npy", _foreign("a latent of sd-scripts", "kohya")),
        (rb"PK\x03\x04.{26}moments(_flip)?\.npy", _foreign("a latent of MAR", "mar")),
        (rb"PK\x03\x04.{26}[^/]*\.npy", _NPZ),
        (rb"PAR1", _foreign("a Parquet table", "parquet")),
        (rb"PK\x03\x04.*data\.pkl", _foreign("a file of PyTorch", "pt")),
        (rb"\x80[\x02-\x05]", _foreign("a pickle, as PyTorch writes", "pt")),
        (rb"PK\x03\x04", Kind("a zip archive", "unpack it first")),
        (
            rb".{257}ustar",
            Kind("a tar", "`auravae encode TAR -o STORE` makes latents of its pictures"),
        ),
        (rb'\{.*"format":\s*"auravae-(store|shard)"', _OF_STORE),
        (
            rb"version https://git-lfs",
            Kind("a pointer that stands for a file", "`git lfs pull` fetches the file"),
        ),
        (
            rb"(?i)\s*<(!doctype html|html)",
            Kind("a web page, as a server gives in place of a file", "download the file again"),
        ),
    )
)


def kind_of(start: bytes) -> Kind | None:
    """Return the kind of a file that begins with these bytes (`START_BYTES` suffice); None if unknown."""
    return next((kind for pattern, kind in _STARTS if pattern.match(start)), None)


def kind_of_file(path: Path) -> Kind | None:
    """Return the kind of a file; None if it is unknown, no file, or unreadable."""
    try:
        with open_regular(path) as file:
            return kind_of(file.read(START_BYTES))
    except (OSError, ValueError):
        return None
