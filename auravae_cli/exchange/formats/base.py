"""What the modules of this package have in common: plain data, in and out.

::

    LatentFile --Format.write--> Exported: a name and its bytes
    Foreign: a file's bytes --Format.read--> Found: a latent, and what the file says of it
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import AuraVaeError, LatentFileError, LatentHeaderError
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.typed import table
from auravae_cli.latents.dtypes import FLOAT32, STORED_DTYPES, Array, StoredDtype
from auravae_cli.latents.latent_file import METADATA_KEY, LatentFile, Record, with_metadata
from auravae_cli.latents.safetensors_file import Tensor
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.geometry import Box
from auravae_cli.symmetry.group import H

NOTE = METADATA_KEY  # the name under which our own metadata travels in files of others
STORED_AS = "stored_dtype"  # a field of it: what the values were before they were widened


@dataclass(frozen=True)
class Choices:
    """What the user can choose: whether flipped copies are written, and for which network."""

    flipped: bool = True
    arch: str = ""


@dataclass(frozen=True)
class Exported:
    """A file to be written: its name below the output folder, and its bytes in pieces.

    A piece is valid until the next one is asked for.
    """

    name: str
    pieces: Callable[[], Iterable[bytes | memoryview]]


@dataclass(frozen=True)
class Foreign:
    """A file of another project: its bytes, the folder that was named, and its name below that."""

    content: bytes | memoryview
    root: str
    name: str

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return os.path.splitext(self.name)[0]  # noqa: PTH122 - a tenth of the time


@dataclass(frozen=True)
class Found:
    """A latent in a file of another project.

    Attributes:
        name: what to call it, below the folder that was named.
        values: [C, h, w] as stored; bfloat16 as uint16 words.
        dtype: any that numpy or safetensors has; only those of `STORED_DTYPES` will do.
        known: the very latent that was exported, where our metadata travelled along.
        facts: fields of `Record` that the format itself tells.
        ignored: what stood beside it and is not taken.
        is_copy: whether it is the flipped copy of another latent, which it came with.
        fault: why it cannot be taken, though others of the file can.
    """

    name: str
    values: Array
    dtype: StoredDtype
    known: LatentFile | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    is_copy: bool = False
    fault: str = ""

    @classmethod
    def unusable(cls, name: str, fault: object) -> Found:
        """What stands in the place of a latent that cannot be read."""
        return cls(name, np.empty(0, np.float32), FLOAT32, fault=str(fault))


class Write(Protocol):
    """Latents => files: ``latents`` is one, or a stack where the format has many in a file.

    ``names`` has a name for each latent; ``number`` counts latents, or files of many.
    """

    def __call__(
        self, latents: LatentFile, names: Sequence[str], number: int, choices: Choices
    ) -> Iterator[Exported]: ...


class Index(Protocol):
    """A file that tells of all others of an export, written last."""

    name: str

    def add(self, exported: Exported, latents: LatentFile) -> None: ...

    def pieces(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Format:
    """A format: whose rules it follows, what it can hold, and how it is written and read.

    Attributes:
        keeps: the fields of docs/format.md that the format's own readers find in it, in any form.
        note: where our metadata travels; empty where there is no place for it.
        flipped: where the horizontally flipped copy stands; empty where there is no place for it.
        needs_flipped: whether its readers fail where there is none.
        archs: the networks that it names; the first is the default.
        dtypes: the names of those that it stores as they are; others become float32.
        stacked: whether a file holds many latents.
        size_in_name: whether pictures of one name but different sizes have files of their own.
        folder: the folder of a latent's file, before its name; empty for most.
        squares: whether all latents must be squares of one size.
        index: makes the file that tells of all others, if there is one.
        ignores: whether a file in a folder, by its name, is another kind of this project's files.
    """

    name: str
    rules: str
    suffixes: frozenset[str]
    write: Write
    read: Callable[[Foreign], Iterator[Found]]
    keeps: frozenset[str] = frozenset()
    note: str = ""
    flipped: str = ""
    needs_flipped: bool = False
    archs: tuple[str, ...] = ()
    any_arch: bool = False
    dtypes: tuple[str, ...] = ("float32",)
    stacked: bool = False
    size_in_name: bool = False
    folder: Callable[[LatentFile, str], str] = lambda latents, name: ""
    squares: bool = False
    index: Callable[[], Index] | None = None
    ignores: Callable[[str], bool] = lambda name: False
    advice: str = ""

    def find(self, file: Foreign) -> Iterator[Found]:
        """The latents in a file. Raises LatentFileError, whatever a damaged one does to a reader."""
        try:
            yield from self.read(file)
        except (AuraVaeError, MemoryError):
            raise
        except Exception as error:  # parsers meet damaged bytes with errors of every type
            reason = f"{type(error).__name__}: {error}"
            raise LatentFileError(f"damaged, or no file of {self.name}: {reason}") from error


def note_of(latents: LatentFile, **more: str) -> str:
    """Our metadata for a file of others: with it, import gives back the very latent."""
    return latents.metadata(**{STORED_AS: latents.dtype.name}, **more)


def name_of(record: Record, otherwise: str) -> str:
    """What to call a row of a stack: its key, else its picture's name, else ``otherwise``."""
    if record.key or not record.source:
        return record.key or otherwise
    return PurePosixPath(record.source).with_suffix("").as_posix()


_read_note = table({STORED_AS: StoredDtype}, optional=(STORED_AS,), others=True)


def known(values: Array, dtype: StoredDtype, note: str | None) -> LatentFile | None:
    """The latent, or the stack [N, C, h, w], that was exported, from the note that came with it.

    Values that were widened for the journey are narrowed again, unless somebody changed them.
    Raises LatentHeaderError where the note is damaged, or is another latent's.
    """
    if note is None:
        return None
    try:
        content = read_json(note)
        stored = _read_note(content).get(STORED_AS, dtype)
    except ValueError as error:
        raise LatentHeaderError(f"damaged {NOTE!r} metadata: {error}") from error
    if stored != dtype and dtype == FLOAT32:
        narrow = stored.exactly(values)
        if narrow is not None:
            values, dtype = narrow, stored
    return with_metadata(values, dtype, content, shard=values.ndim == 4)


def flipped(latents: LatentFile) -> Array:
    """The values of the horizontally flipped latent: the group action, no second encode."""
    return act(H, latents.values, latents.space.irreps)


def widened(latents: LatentFile, values: Array | None = None) -> NDArray[np.float32]:
    """A latent's values, or others of its dtype, as little-endian float32, exactly."""
    wide = latents.dtype.to_float32(latents.values if values is None else values)
    return np.ascontiguousarray(wide, "<f4")


def as_numpy(latents: LatentFile) -> Array:
    """The values in a type that numpy has: bfloat16 as float32, others as they are."""
    if latents.dtype.name == "bfloat16":
        return widened(latents)
    return np.ascontiguousarray(latents.values)


def dtype_of(values: Array) -> StoredDtype:
    """What a numpy array is stored in; of a name that is none of ours where it will not do."""
    for dtype in STORED_DTYPES.values():
        if dtype.name != "bfloat16" and dtype.numpy == values.dtype.newbyteorder("<"):
            return dtype
    return StoredDtype(str(values.dtype), "", values.dtype)


def tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor by name. Raises LatentFileError where there is none."""
    if name not in tensors:
        found = ", ".join(map(repr, list(tensors)[:4])) or "nothing"
        raise LatentFileError(f"no tensor {name!r}: it holds {found}")
    return tensors[name]


def require_values(values: Array) -> None:
    """Raise LatentFileError for an array without values: it may still claim rows without number."""
    if not values.size:
        raise LatentFileError(f"shape {list(values.shape)}: an array without values")


def each(found: Found) -> Iterator[Found]:
    """The latents of a batch [B, C, h, w] one by one; a single one as it is."""
    if found.values.ndim != 4:
        yield found
        return
    require_values(found.values)
    several = len(found.values) > 1
    for row, values in enumerate(found.values):
        name = f"{found.name}-{row}" if several else found.name
        yield replace(found, name=name, values=values, known=None if several else found.known)


def label_of(record: Record) -> int | None:
    """The class of a picture; None where it has none."""
    label = record.annotations.get("label")
    return label if type(label) is int else None


def original_size(latents: LatentFile) -> tuple[int, int]:
    """(height, width) of the upright source picture."""
    record = latents.records[0]
    return record.source_size or record.image_size


def shown_box(latents: LatentFile) -> tuple[int, int, int, int, int, int]:
    """Where the latent lies in the resized picture, as trainers count that crop to buckets.

    (width, height) of the source resized to the latent's scale, then (left, top, right, bottom) of
    the latent in it, which is beyond its sides where the latent was padded. All turn with flips.
    """
    record, g = latents.records[0], latents.records[0].orientation
    height, width = original_size(latents)
    box = (record.source_box or Box(0, 0, width, height)).act(g, height, width)
    down = record.image_size[0] / (box.bottom - box.top)
    across = record.image_size[1] / (box.right - box.left)
    left = round(box.left * across) - record.padding.left
    top = round(box.top * down) - record.padding.top
    padded_height, padded_width = record.padding.padded(*record.image_size)
    scaled = round(width * across), round(height * down)
    return *scaled, left, top, left + padded_width, top + padded_height


def source_name(latents: LatentFile, name: str) -> str:
    """The file name of the picture, without folders."""
    return Path(latents.records[0].source or name).name
