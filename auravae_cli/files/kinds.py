r"""What a file or a folder is, by its first bytes, and which command takes it: for errors about a wrong kind.

>>> str(kind_of(b"\xff\xd8\xff\xe0\0\x10JFIF"))
'a JPEG picture: `auravae encode` makes a latent of it'
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.files.mapping import open_regular

START_BYTES = 1 << 16  # that are inspected: names of tensors come after the metadata
SETTINGS_FILE = "store.json"  # makes a folder a store

_ENCODE, _MODEL = "`auravae encode` makes a latent of it", "name the file with --model"
_IMPORT, _MAKES = "auravae import --from", "makes latents of it"


@dataclass(frozen=True)
class Kind:
    """A kind of files: ``name`` with its article, and what to do with such a file."""

    name: str
    hint: str

    @property
    def is_picture(self) -> bool:
        """Whether `auravae encode` takes such files."""
        return self.hint == _ENCODE

    @property
    def form(self) -> str:
        """The format that `auravae import` reads such files as; empty if it does not."""
        return self.hint.partition(f"`{_IMPORT} ")[2].partition("`")[0]

    @property
    def is_weights(self) -> bool:
        """Whether such a file may hold the weights of a model."""
        return self.form in ("safetensors", "pt") or self.hint == _MODEL

    def __str__(self) -> str:
        return f"{self.name}: {self.hint}"


LATENT = Kind(
    "a latent of auravae", "`auravae decode` makes a picture of it, `auravae info` describes it"
)
STORE = Kind(
    "a store of latents",
    "`auravae decode STORE -o FOLDER` makes pictures of it, `auravae info` describes it",
)
_OF_STORE = Kind("a file of a store", "name the store's folder instead")

# What a file begins with => what it is. The first pattern that fits decides. Patterns are
# compiled at their first use, which most runs never need.
_STARTS = (
    (rb"\xff\xd8\xff", "a JPEG picture", _ENCODE),
    (rb"\x89PNG\r\n\x1a\n", "a PNG picture", _ENCODE),
    (rb"GIF8", "a GIF picture", _ENCODE),
    (rb"RIFF....WEBP", "a WebP picture", _ENCODE),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF picture", _ENCODE),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", _ENCODE),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture", _ENCODE),
    (rb"....ftyp(avif|avis)", "an AVIF picture", _ENCODE),
    (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC picture", _ENCODE),
    (rb"qoif", "a QOI picture", _ENCODE),
    (rb"BM....\0\0\0\0", "a BMP picture", _ENCODE),
    (rb"P[1-6Ff]\s", "a PNM picture", _ENCODE),
    (rb'.{8}\{.*"latent_tensor":', "a latent of ComfyUI", f"`{_IMPORT} comfyui` {_MAKES}"),
    (
        rb'.{8}\{.*"latents_(\d+x)?\d+x\d+_\w+":',
        "a latent of musubi-tuner",
        f"`{_IMPORT} musubi` {_MAKES}",
    ),
    (
        rb'.{8}\{.*"auravae":"\{.{0,9999}?\\"kind\\": ?\\"(linear|network)\\"',
        "the weights of a model",
        _MODEL,
    ),
    # As metadata, which copies for others have as well.
    (rb'.{8}\{.*"auravae":', LATENT.name, LATENT.hint),
    (rb'.{8}\{.*"latent":', "a latent of ai-toolkit", f"`{_IMPORT} ai-toolkit` {_MAKES}"),
    (
        rb".{8}\{",
        "a safetensors file of other tensors",
        f"`{_IMPORT} safetensors` {_MAKES}; weights of a model go to --model",
    ),
    (rb"\x93NUMPY", "a numpy array", f"`{_IMPORT} npy` {_MAKES}"),
    (
        rb"PK\x03\x04.{26}latents(_\d+x\d+)?\.npy",
        "a latent of sd-scripts",
        f"`{_IMPORT} kohya` {_MAKES}",
    ),
    (rb"PK\x03\x04.{26}moments(_flip)?\.npy", "a latent of MAR", f"`{_IMPORT} mar` {_MAKES}"),
    (rb"PK\x03\x04.{26}[^/]*\.npy", "an archive of numpy arrays", f"`{_IMPORT} npz` {_MAKES}"),
    (
        rb'.{8,32768}?\{"column_encodings": ',
        "a shard of MosaicML streaming",
        f"`{_IMPORT} mds` {_MAKES}",
    ),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", f"`{_IMPORT} repa-e` {_MAKES}"),
    (rb"PAR1", "a Parquet table", f"`{_IMPORT} parquet` {_MAKES}"),
    (rb"PK\x03\x04.*data\.pkl", "a file of PyTorch", f"`{_IMPORT} pt` {_MAKES}"),
    (rb"\x80[\x02-\x05]", "a pickle, as PyTorch writes", f"`{_IMPORT} pt` {_MAKES}"),
    (rb"PK\x03\x04", "a zip archive", "unpack it first"),
    (rb".{257}ustar", "a tar", "`auravae encode TAR -o STORE` makes latents of its pictures"),
    (
        rb'\{.*"format":\s*"auravae-(store|shard)"',
        _OF_STORE.name,
        _OF_STORE.hint,
    ),
    (
        rb"version https://git-lfs",
        "a Git LFS pointer in place of a file",
        "`git lfs pull` fetches the file",
    ),
    (
        rb"(?i)\s*<(!doctype html|html)",
        "a web page, which a server sent instead of a file",
        "download the file again",
    ),
)


def kind_of(start: bytes) -> Kind | None:
    """Return the kind of a file that begins with these bytes (`START_BYTES` suffice); None if unknown."""
    for pattern, name, hint in _STARTS:
        if re.match(pattern, start, re.DOTALL):
            return Kind(name, hint)
    return None


def kind_of_file(path: Path) -> Kind | None:
    """Return the kind of a file, or of a folder that is a store; None if it is unknown or unreadable."""
    if is_store_folder(path):
        return STORE
    kind = _kind_at(path)
    return _OF_STORE if kind == LATENT and is_store_folder(path.parent) else kind


def store_around(path: Path) -> Path | None:
    """Return the store whose folder a path lies in, however deep; None if there is none."""
    above = () if path.is_absolute() else Path.cwd().parents
    return next(filter(is_store_folder, (*path.parents, *above)), None)


def is_store_folder(folder: Path) -> bool:
    """Return whether a folder is a store, by the content of its settings file."""
    settings = folder / SETTINGS_FILE
    return os.path.isfile(settings) and _kind_at(settings) == _OF_STORE


def _kind_at(path: Path) -> Kind | None:
    try:
        with open_regular(path) as file:
            return kind_of(file.read(START_BYTES))
    except (OSError, ValueError):
        return None
