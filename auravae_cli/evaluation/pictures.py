"""The pictures of an evaluation's page: selected, made once, and kept beside the results.

::

    rows --choose--> names --sources once more--> original, reconstruction, difference, latent
                        '--featured--> decodes of the four flips, turned back; the latent's file

Numbers come only from the results; a picture is made only if it is not kept.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from auravae_cli.errors import AuraVaeError, reason_of
from auravae_cli.evaluation.measure import MeasureOptions, Subject
from auravae_cli.evaluation.page.data import (
    COMPONENTS,
    DIFFERENCE,
    LATENT,
    ORIGINAL,
    RECONSTRUCTION,
    Choice,
)
from auravae_cli.evaluation.page.gallery import LONGEST_LATENT, png
from auravae_cli.evaluation.reconstructions import Reconstructions
from auravae_cli.evaluation.run import Evaluation, PictureFailure, Survey
from auravae_cli.files.atomic import write_atomically
from auravae_cli.images.contact_sheet import difference
from auravae_cli.images.read import Pixels, from_unit, to_8_bit
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.model.codec import Codec
from auravae_cli.model.preview import component_colours
from auravae_cli.symmetry.action import act_on_pixels
from auravae_cli.symmetry.group import GROUP

FOLDER = "pictures"
MOST_DIFFERING = 6  # pictures at the start of the page
LONGEST_SIDE, LONGEST_ORBIT = 720, 400
GIVEN = (ORIGINAL, RECONSTRUCTION, DIFFERENCE)
PLAIN = (ORIGINAL, RECONSTRUCTION, DIFFERENCE, COMPONENTS)
ORBIT = tuple(f"orbit-{g}.webp" for g in GROUP)
ORBIT_DIFFERENCES = tuple(f"orbit-{g}-difference.webp" for g in GROUP[1:])
FEATURED = (*PLAIN, LATENT, *ORBIT, *ORBIT_DIFFERENCES)

PictureRows = Sequence[Mapping[str, Any]]


def choose(rows: PictureRows, worst_flip: str | None, limit: int) -> Choice:
    """Choose all pictures; or of more than ``limit`` those on which models differ most, the worst, and as many
    around the median and best.

    Args:
        rows: those of all models, at least one. Pictures are ordered by PSNR of the first model.
        worst_flip: the picture with the largest cost of flips, shown in detail, if it is known.
        limit: at least one.
    """
    first = rows[0]["model"]
    mine = [row for row in rows if row["model"] == first]
    ranked = sorted(mine, key=lambda row: (_psnr(row), row["picture"]))
    names: tuple[str, ...] = tuple(row["picture"] for row in ranked)
    featured = worst_flip if worst_flip and worst_flip in names else names[0]
    differing = _differing(rows, names)[: max(1, min(MOST_DIFFERING, limit // 4))]
    rest = tuple(name for name in names if name not in differing)
    room = limit - len(differing)
    if len(rest) <= room:
        groups = [("Where the models differ most", differing), ("The others", rest)]
        return Choice(tuple(groups) if differing and rest else (("", names),), featured)
    few = room // 4
    worst, start = room - 2 * few, (len(rest) - few) // 2
    groups = [
        ("Where the models differ most", differing),
        ("The worst", rest[:worst]),
        ("Around the median", rest[max(worst, start) :][:few]),
        ("The best", rest[len(rest) - few :]),
    ]
    return Choice(tuple(group for group in groups if group[1]), featured)


def _differing(rows: PictureRows, names: Sequence[str]) -> tuple[str, ...]:
    """Return the pictures by how much PSNR of the models differs on them, the most first; none if they are
    all alike, or of one model."""
    values: dict[str, list[float]] = {name: [] for name in names}
    for row in rows:
        if row["psnr"] is not None and row["picture"] in values:
            values[row["picture"]].append(row["psnr"])
    spreads = {name: max(v) - min(v) for name, v in values.items() if len(v) > 1}
    known = [name for name in names if spreads.get(name, 0) > 0]
    return tuple(sorted(known, key=lambda name: (-spreads[name], name)))


def _psnr(row: Mapping[str, Any]) -> float:
    return math.inf if row["psnr"] is None else float(row["psnr"])


class Album:
    """Pictures by their content's key, kept in a folder, or in memory if there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder / FOLDER if folder else None
        self._files: dict[tuple[str, str], bytes] = {}

    def find(self, key: str, name: str) -> bytes | None:
        """Return a file; None if it is missing. A damaged file counts as missing."""
        place = _place(key), name
        if place not in self._files and self._folder is not None:
            try:
                content = self._folder.joinpath(*place).read_bytes()
            except OSError:
                return None
            if not _is_sound(content, name):
                return None
            self._files[place] = content
        return self._files.get(place)

    def add(self, key: str, name: str, content: bytes) -> None:
        """Keep a file. Raises OutputError."""
        place = _place(key), name
        self._files[place] = content
        if self._folder is not None:
            write_atomically(self._folder.joinpath(*place), content)

    def has(self, key: str, names: Sequence[str]) -> bool:
        """Return whether all these files exist."""
        return all(self.find(key, name) is not None for name in names)


def _place(key: str) -> str:
    """Return the folder of ``key``, which also depends on how pictures are made."""
    way = f"1 {LONGEST_SIDE} {LONGEST_ORBIT} {LONGEST_LATENT}"
    return hashlib.sha256(f"{key} {way}".encode()).hexdigest()[:24]


def _is_sound(content: bytes, name: str) -> bool:
    start = content[:4]
    return start in {b"\x89PNG", b"RIFF"} if name != LATENT else content[8:9] == b"{"


def make_pictures(
    evaluation: Evaluation, survey: Survey, choice: Choice, album: Album
) -> Iterator[PictureFailure]:
    """Make the pictures that the album lacks; yield failures. Raises ModelError, OutputError."""
    lacking = {
        name: labels
        for name in choice.names
        if (labels := list(_lacking(evaluation, survey, choice, album, name)))
    }
    options = evaluation.options.measure
    for subject in evaluation.subjects(lacking) if lacking else ():
        if isinstance(subject, PictureFailure):
            yield subject
            continue
        for label in lacking[subject.name]:
            key = evaluation.identity(label, survey.pictures[subject.name])
            is_featured = subject.name == choice.featured
            try:
                files = draw(evaluation.codecs[label], subject, options, is_featured)
            except (AuraVaeError, MemoryError) as error:
                yield PictureFailure(subject.name, label, reason_of(error))
                continue
            for name, content in files.items():
                album.add(key, name, content)


def _lacking(
    evaluation: Evaluation, survey: Survey, choice: Choice, album: Album, name: str
) -> Iterator[str]:
    for label, model in evaluation.codecs.items():
        wanted = FEATURED if name == choice.featured else PLAIN
        if isinstance(model, Reconstructions):
            wanted = GIVEN
        if not album.has(evaluation.identity(label, survey.pictures[name]), wanted):
            yield label


def draw(
    codec: Codec | Reconstructions, subject: Subject, options: MeasureOptions, is_featured: bool
) -> dict[str, bytes]:
    """Return the files of one picture and model. Raises InputImageError, ComputeError."""
    if isinstance(codec, Reconstructions):
        return _compared(*codec.picture(subject, options))
    image = options.preparation.apply(subject.image, codec.space.downsampling_factor)
    latent = codec.encode_unit(image.padded[None])[0]
    stored = codec.store(latent, image, options.stored_dtype, subject.name)
    original, plain = to_8_bit(image.pixels), _decode(codec, stored)
    cells = component_colours(stored.to_float32(), codec.space.irreps)
    files = _compared(original, plain) | {COMPONENTS: png(cells)}
    if is_featured:
        files[LATENT] = stored.to_bytes()
        files |= _orbit(codec, stored, plain)
    return files


def _compared(original: Pixels, reconstruction: Pixels) -> dict[str, bytes]:
    return {
        ORIGINAL: webp(original, LONGEST_SIDE),
        RECONSTRUCTION: webp(reconstruction, LONGEST_SIDE),
        DIFFERENCE: webp(difference(reconstruction, original), LONGEST_SIDE, 80),
    }


def _orbit(codec: Codec, stored: LatentFile, plain: Pixels) -> dict[str, bytes]:
    """Decode each flip of a latent and flip it back, and compare it with the plain decode."""
    files = {}
    for g in GROUP:
        turned = plain if g == GROUP[0] else act_on_pixels(g, _decode(codec, stored.act(g)))
        files[f"orbit-{g}.webp"] = webp(turned, LONGEST_ORBIT)
        if g != GROUP[0]:
            files[f"orbit-{g}-difference.webp"] = webp(difference(turned, plain), LONGEST_ORBIT, 80)
    return files


def _decode(codec: Codec, stored: LatentFile) -> Pixels:
    record = stored.records[0]
    (image,) = codec.decode_finite(stored.to_float32()[None])
    return from_unit(image[:, *record.padding.inner(*record.image_size)])


def webp(pixels: Pixels, longest: int, quality: int = 90) -> bytes:
    """Return a picture as WebP, reduced to ``longest`` pixels a side if it is larger."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
