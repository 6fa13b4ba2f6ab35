"""Small data sets for tests: pictures in folders and tars, and what a store of them holds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from auravae_cli.latents.latent_file import LatentFile, read_latents

Files = dict[str, bytes]


def picture(seed: int, height: int = 16, width: int = 24, file_format: str = "PNG") -> bytes:
    """A picture file of noise, which no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def pictures(count: int, start: int = 0, **options: Any) -> Files:
    """``000.png`` and so on, of two sizes."""
    return {
        f"{n:03d}.png": picture(n, height=16 + 8 * (n % 2), **options)
        for n in range(start, start + count)
    }


def write_tar(path: Path, members: Files | Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of members in their order; it depends on them alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_folder(folder: Path, files: Files) -> Path:
    """Files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def rows(store: Path, pattern: str = "*") -> dict[str, LatentFile]:
    """The latents of a store by key; no key stands twice."""
    found: dict[str, LatentFile] = {}
    for path in sorted(store.rglob(f"{pattern}.safetensors")):
        latents = read_latents(path)
        for index, record in enumerate(latents.records):
            assert record.key is not None and record.key not in found
            found[record.key] = latents.row(index)
    return found


def everything(folder: Path) -> Files:
    """All that lies below a folder, hidden or not; an empty folder as its name."""
    return {
        path.relative_to(folder).as_posix() + "/" * path.is_dir(): (
            b"" if path.is_dir() else path.read_bytes()
        )
        for path in sorted(folder.rglob("*"))
    }
