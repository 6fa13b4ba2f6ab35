"""What the tests of exchange formats share: random latents of every kind, written and read back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from auravae_cli.exchange.formats.base import Choices, Foreign, Format, Found
from auravae_cli.exchange.registry import FORMATS
from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.latents.latent_file import LatentFile, LatentSpace, Record, stack
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.geometry import Box, padding_for
from auravae_cli.symmetry.group import E, GroupElement, H, Irreps

WRITTEN = {name: form for name, form in FORMATS.items() if form.write}
SPACE = LatentSpace("toy", "f" * 64, 8, Irreps.parse("2xee+1xoe+1xeo"), 4.0)


def make_latent(
    seed: int,
    height: int = 21,
    width: int = 30,
    dtype: str = "float16",
    g: GroupElement = E,
    label: int | None = 3,
    caption: str | None = "a café",
    cropped: bool = False,
) -> LatentFile:
    """A random latent of a picture of that size, seen from its flip by ``g``."""
    padding = padding_for(height, width, 8)
    cells = (
        (height + padding.top + padding.bottom) // 8,
        (width + padding.left + padding.right) // 8,
    )
    values = np.random.default_rng(seed).normal(size=(4, *cells)).clip(-4, 4).astype(np.float32)
    annotations = {"label": label, "caption": caption}
    record = Record(
        (height, width),
        padding,
        source="sub/a photo.jpg",
        source_sha256=hashlib.sha256(b"photo").hexdigest(),
        preparation={"pad": "edge"},
        key="sub/a photo",
        source_size=(2 * height + 9, 2 * width + 7) if cropped else None,
        source_box=Box(3, 4, 3 + 2 * width, 4 + 2 * height) if cropped else None,
        annotations={name: value for name, value in annotations.items() if value is not None},
    )
    stored = STORED_DTYPES[dtype]
    latent = LatentFile(stored.from_float32(values), stored, SPACE, (record,), "test")
    return latent.act(g)


def streamed() -> list[LatentFile]:
    """The latents of tests/golden/streams: one with a caption and a label, one without."""
    return [make_latent(0, 8, 16), make_latent(1, 8, 16, label=None, caption=None)]


def write(
    folder: Path, name: str, latent: LatentFile, choices: Choices | None = None
) -> list[Path]:
    """The files that a format makes of a latent, as the pipeline writes them, its index too."""
    form = needed(name)
    assert form.write is not None
    choices = choices or Choices(True, next(iter(form.archs), ""))
    content = stack([latent]) if form.stacked else latent
    index, paths = form.index() if form.index else None, []
    for file in form.write(content, [latent.records[0].key or "photo"], 0, choices):
        path = folder / file.name
        if not form.collects:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(bytes(piece) for piece in file.pieces()))
        paths.append(path)
        if index:
            index.add(file, content)
    if index:
        folder.mkdir(parents=True, exist_ok=True)
        for file in index.files():
            (folder / file.name).write_bytes(b"".join(file.pieces()))
        index.close()
    return [folder / index.name] if index and form.collects else paths


def needed(name: str) -> Format:
    """A format whose library is there; otherwise the test is skipped."""
    form = FORMATS[name]
    if form.needs:
        pytest.importorskip(form.needs)
    return form


def read(folder: Path, name: str, path: Path) -> list[Found]:
    """The latents that a format finds in a file."""
    file = Foreign(path.read_bytes(), str(folder), path.relative_to(folder).as_posix())
    return list(needed(name).read(file))


def facts_of(latent: LatentFile) -> dict[str, object]:
    """What a check may want to know besides the values."""
    record = latent.records[0]
    return {
        "original_size": record.source_size or record.image_size,
        "dtype": latent.dtype.name,
        "orientation": record.orientation,
        "label": record.annotations.get("label"),
        "caption": record.annotations.get("caption"),
    }


def plain_and_mirrored(latent: LatentFile) -> tuple[np.ndarray, np.ndarray]:
    """The values as float32, and the flipped ones."""
    z = latent.dtype.to_float32(latent.values)
    return z, act(H, z, SPACE.irreps)
