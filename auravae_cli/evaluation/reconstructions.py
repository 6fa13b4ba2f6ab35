"""Reconstructions that were made elsewhere: a folder of pictures, measured like a model's.

A picture's reconstruction has its name below the folder, except for the suffix, and its size after
preparation. There is no latent, so only pictures are measured.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from auravae_cli.errors import InputImageError, UsageError
from auravae_cli.evaluation.measure import Measured, MeasureOptions, Subject, compare
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import read_file
from auravae_cli.files.walk import files_below
from auravae_cli.images.read import Pixels, read_image, to_8_bit
from auravae_cli.operations.suffixes import PICTURES

PREFIX = "folder:"
PERIOD = 8  # of the grid, which is not known
_NOTHING = ("latent_shape", "noise", "storage", "space", "flips", "moments")


@dataclass(frozen=True)
class Reconstructions:
    """A folder's pictures by their names without suffix; ``digest`` is that of all names and bytes."""

    label: str
    digest: str
    files: Mapping[str, Path]

    def find(self, name: str) -> Path:
        """Return the reconstruction of a picture. Raises InputImageError if there is none."""
        stem = _without_suffix(name)
        alone = [
            path for key, path in self.files.items() if PurePosixPath(key).name == Path(stem).name
        ]
        found = self.files.get(stem) or (alone[0] if len(alone) == 1 else None)
        if found is None:
            which = f"{len(alone)} of its name, in other folders" if alone else "none of its name"
            raise InputImageError(f"no reconstruction in {self.label}: {which}")
        return found

    def picture(self, subject: Subject, options: MeasureOptions) -> tuple[Pixels, Pixels]:
        """Return the original as it is compared, and its reconstruction, both uint8 [H, W, 3].

        Raises InputImageError.
        """
        original = to_8_bit(options.preparation.apply(subject.image, 1).pixels)
        path = self.find(subject.name)
        content = read_file(path, FILE_BYTES, InputImageError)
        found = to_8_bit(read_image(content, background=options.preparation.background).pixels)
        if found.shape != original.shape:
            (h, w), (height, width) = found.shape[:2], original.shape[:2]
            raise InputImageError(
                f"{path} has {w} x {h} pixels, the original {width} x {height} as it is compared: name "
                "with --protocol, --resize or --center-crop how it was prepared"
            )
        return original, found

    def measure(self, subjects: Sequence[Subject], options: MeasureOptions) -> list[Measured]:
        """Measure the reconstructions of pictures. Raises InputImageError."""
        measured = []
        for subject in subjects:
            original, found = self.picture(subject, options)
            row: dict[str, Any] = {
                "picture": subject.name,
                "sha256": subject.image.sha256,
                "image_size": list(original.shape[:2]),
                **compare(found, original, PERIOD, options.ssim),
                **dict.fromkeys(_NOTHING),
                "seconds": {"encode": None, "decode": None},
            }
            measured.append(Measured(row, original, found))
        return measured

    def facts(self, options: MeasureOptions) -> dict[str, Any]:
        """Return what numbers depend on, apart from the original."""
        return {
            "reconstructions": self.digest,
            "preparation": options.preparation.to_json(),
            "ssim": options.ssim,
        }


def load_reconstructions(name: str) -> Reconstructions | None:
    """Return the folder that ``folder:PATH`` names; None for any other name. Raises UsageError."""
    if not name.startswith(PREFIX):
        return None
    folder = Path(name.removeprefix(PREFIX))
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of reconstructions", "model")

    def take(place: str, entry: os.DirEntry[str]) -> tuple[str, Path]:
        return place, Path(entry.path)

    def refuse(place: str, error: OSError) -> tuple[str, Path]:
        raise UsageError(f"{folder / place}: cannot be read: {error.strerror or error}", "model")

    found = sorted(files_below(str(folder), take, refuse))
    pictures = [(place, path) for place, path in found if path.suffix.lower() in PICTURES]
    digest, files = hashlib.sha256(), dict[str, Path]()
    for place, path in pictures:
        key = _without_suffix(place)
        if key in files:
            raise UsageError(
                f"{path} and {files[key].name}: two reconstructions of one picture", "model"
            )
        files[key] = path
        digest.update(os.fsencode(place) + b"\0")
        digest.update(hashlib.sha256(read_file(path, FILE_BYTES, InputImageError)).digest())
    if not files:
        raise UsageError(f"{folder}: no pictures in it", "model")
    return Reconstructions(folder.resolve().name or "folder", digest.hexdigest(), files)


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
