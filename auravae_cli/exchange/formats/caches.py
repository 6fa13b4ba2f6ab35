"""Latent caches of trainers, which are only imported: they also hold text embeddings of the trainers' models.

Rules, of pickled tables that are loaded as weights alone:

- OneTrainer: Nerogar/mgds, pipelineModules/DiskCache.py at 3a6994ad, and Nerogar/OneTrainer,
  modules/dataLoader at 23df3832: ``image/GROUP/variation-N/NUMBER.pt`` with ``latent_image``, and
  ``aggregate.pt``, whose list maps these numbers to the paths of the pictures. Sizes are (height, width).
- diffusion-pipe: tdrussell/diffusion-pipe, utils/cache.py at 8f83dbf2: tables with ``latents``, end to end in
  ``shard_N.bin``; the SQLite database ``metadata.db`` records where each begins.
- NeMo Automodel: NVIDIA-NeMo/Automodel, tools/diffusion/preprocessing_multiprocess.py at 36044ad3:
  ``WxH/HASH.pt`` with ``latent``. Sizes are (width, height).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.annotations import annotations_from
from auravae_cli.exchange.formats.base import Foreign, Format, Found, without_frame
from auravae_cli.exchange.formats.tensors import array_of, loaded
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import read_file, view_of

AGGREGATE, DATABASE = "aggregate.pt", "metadata.db"


def read_onetrainer(file: Foreign) -> Iterator[Found]:
    """Yield the latent of a file, by the name of its picture."""
    table = _table(file.content)
    here = Path(file.root, file.name)
    picture = _pictures(here.parent).get(here.stem)
    yield _found(file, table, "latent_image", picture, _size(table.get("original_resolution")))


def read_nemo(file: Foreign) -> Iterator[Found]:
    """Yield the latent of a file, by the name of its picture."""
    table = _table(file.content)
    across = _size(table.get("original_resolution"))
    size = (across[1], across[0]) if across else None
    found = _found(file, table, "latent", table.get("image_path"), size)
    yield _with_captions(found, [table.get("prompt")])


def read_diffusion_pipe(file: Foreign) -> Iterator[Found]:
    """Yield every latent of a shard; a damaged one fails alone."""
    content = view_of(file.content)
    for number, (start, end) in enumerate(_places(file, len(content))):
        otherwise = f"{file.stem}/{number:06d}"
        try:
            table = _table(content[start:end])
            spec: Any = table.get("image_spec")
            picture = spec[1] if isinstance(spec, list | tuple) and len(spec) == 2 else None
            found = _found(Foreign(b"", file.root, otherwise), table, "latents", picture, None)
            captions: Any = table.get("caption")
            yield _with_captions(
                found, captions if isinstance(captions, list | tuple) else [captions]
            )
        except LatentFileError as error:
            yield Found.unusable(otherwise, error)


def _table(content: bytes | memoryview) -> Mapping[str, Any]:
    table = loaded(content)
    if not isinstance(table, Mapping):
        raise LatentFileError(f"expected a table of tensors, found {type(table).__name__}")
    return table


def _found(
    file: Foreign,
    table: Mapping[str, Any],
    name: str,
    picture: object,
    size: tuple[int, int] | None,
) -> Found:
    """Return the latent of a table, named like its picture, in its folder of the cache."""
    if name not in table:
        raise LatentFileError(
            f"no tensor {name!r}: it holds {', '.join(map(repr, table)) or 'none'}"
        )
    values, dtype = array_of(table[name])
    facts: dict[str, Any] = {"source_size": size} if size else {}
    stem = file.stem
    if isinstance(picture, str) and picture:
        facts["source"] = PureWindowsPath(picture).name
        folder = PurePosixPath(file.stem).parent
        stem = (folder / PureWindowsPath(picture).stem).as_posix()
    ignored = tuple(str(key) for key in table if key != name and "latent" in str(key))
    return Found(stem, without_frame(values), dtype, facts=facts, ignored=ignored)


def _with_captions(found: Found, captions: Sequence[Any]) -> Found:
    """Return a latent with the first of its captions; the record has one."""
    annotations, ignored = annotations_from(captions[0] if captions else None, None)
    ignored += ("further captions",) if captions[1:] else ()
    facts = {**found.facts, "annotations": annotations}
    return replace(found, facts=facts, ignored=(*found.ignored, *ignored))


def _size(value: Any) -> tuple[int, int] | None:
    """Return two sides, in their order; None if it is something else."""
    sides = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(sides, Sequence) or [type(side) for side in sides] != [int, int]:
        return None
    return (sides[0], sides[1]) if min(sides) > 0 else None


def _pictures(folder: Path) -> Mapping[str, str]:
    """Return the pictures' paths by the numbers of a folder's files."""
    path = folder / AGGREGATE
    try:
        return _read_pictures(path, path.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=2)
def _read_pictures(path: Path, version: int) -> Mapping[str, str]:
    rows = loaded(read_file(path, FILE_BYTES, LatentFileError))
    return {
        str(number): row["image_path"]
        for number, row in enumerate(rows if isinstance(rows, list) else ())
        if isinstance(row, Mapping) and isinstance(row.get("image_path"), str)
    }


def _places(file: Foreign, size: int) -> Iterator[tuple[int, int]]:
    """Yield where each table of a shard starts and ends. Raises LatentFileError."""
    name, path = PurePosixPath(file.stem).name, Path(file.root, file.name).parent / DATABASE
    if not re.fullmatch(r"shard_\d+", name):
        raise LatentFileError(f"expected a name such as shard_0.bin, found {name}.bin")
    if not path.is_file():
        raise LatentFileError(f"{DATABASE}, which says where each latent begins, is not beside it")
    place, before = f"{path.absolute().as_uri()}?mode=ro&immutable=1", 0
    try:
        with closing(sqlite3.connect(place, uri=True)) as database:
            kinds = database.execute("SELECT type FROM sqlite_master WHERE name = ?", (name,))
            if kinds.fetchall() != [("table",)]:  # a view could compute forever
                raise LatentFileError(f"{DATABASE} has no table {name!r}")
            rows = database.execute(f'SELECT offset, size FROM "{name}" ORDER BY rowid')
            for start, length in rows:
                if type(start) is not int or type(length) is not int:
                    raise LatentFileError(f"{DATABASE} is damaged: places that are no numbers")
                if start < before or length <= 0 or start + length > size:
                    raise LatentFileError(
                        f"damaged or cut off: {DATABASE} names more than is there"
                    )
                before = start + length
                yield start, before
    except sqlite3.Error as error:
        raise LatentFileError(f"{DATABASE} cannot be read: {error}") from error


_only_imported = partial(
    Format,
    write=None,
    needs="torch",
    advice="its caches hold the embeddings of its text encoders, too",
)
ONETRAINER = _only_imported(
    name="onetrainer",
    rules="Nerogar/mgds, pipelineModules/DiskCache.py at 3a6994ad",
    suffixes=frozenset((".pt",)),
    read=read_onetrainer,
    ignores=lambda name: Path(name).name == AGGREGATE or "text" in Path(name).parts[-4:-3],
)
DIFFUSION_PIPE = _only_imported(
    name="diffusion-pipe",
    rules="tdrussell/diffusion-pipe, utils/cache.py at 8f83dbf2",
    suffixes=frozenset((".bin",)),
    containers=(".bin",),
    read=read_diffusion_pipe,
    ignores=lambda name: any(part.startswith("text_embeddings_") for part in Path(name).parts),
)
NEMO = _only_imported(
    name="nemo",
    rules="NVIDIA-NeMo/Automodel, tools/diffusion/preprocessing_multiprocess.py at 36044ad3",
    suffixes=frozenset((".pt",)),
    read=read_nemo,
)
