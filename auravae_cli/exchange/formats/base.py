"""The common parts of the formats: plain data, in and out.

::

    LatentFile --Format.write--> Exported: a name and its bytes
    Foreign: a file's bytes --Format.read--> Found: a latent, and what the file records of it
"""

from __future__ import annotations

import hashlib
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
from auravae_cli.symmetry.group import E, GroupElement, H

NOTE = METADATA_KEY  # the name of our own metadata in files of others
# Fields of it: the dtype of the values before they were widened, their sha256 in that dtype, and what
# their trainer will compute of them, whose inverse is folded in, with the sha256 of the result.
STORED_AS, SHA256 = "stored_dtype", "values_sha256"
FOLDED, FOLDED_SHA256 = "folded", "folded_sha256"


@dataclass(frozen=True)
class Network:
    """A network that a trainer reads latents for: it computes ``(z - shift) * scale`` of what it reads."""

    channels: int = 16
    shift: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Choices:
    """The user's choices: flipped copies or not, for which network, and its normalisation to invert."""

    flipped: bool = True
    arch: str = ""
    fold: Network | None = None


@dataclass(frozen=True)
class Exported:
    """A file to write: its name below the output folder, its bytes in pieces, and its entry in an index.

    A piece is valid until the next one is requested.
    """

    name: str
    pieces: Callable[[], Iterable[bytes | memoryview]]
    entry: Any = None


@dataclass(frozen=True)
class Foreign:
    """A file of another project: its bytes, the named folder, and its name below that."""

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
        name: its name, below the named folder.
        values: [C, h, w] as stored; bfloat16 as uint16 words.
        dtype: any type of numpy or safetensors; only those of `STORED_DTYPES` are accepted.
        known: the exact latent that was exported, if our metadata was kept.
        facts: fields of `Record` that the format itself has.
        ignored: what else the file holds, which is not imported.
        is_copy: whether it is the flipped copy of another latent of the file.
        fault: why it cannot be imported, though others of the file can.
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
        """Return a placeholder for a latent that cannot be read."""
        return cls(name, np.empty(0, np.float32), FLOAT32, fault=str(fault))


class Write(Protocol):
    """Convert latents to files: ``latents`` is one, or a stack if the format has many in a file.

    ``names`` has a name for each latent; ``number`` counts latents, or files of many.
    """

    def __call__(
        self, latents: LatentFile, names: Sequence[str], number: int, choices: Choices
    ) -> Iterator[Exported]: ...


class Index(Protocol):
    """A file that lists all other files of an export, or collects them, written last; the first of several."""

    name: str

    def add(self, exported: Exported, latents: LatentFile) -> None: ...

    def files(self) -> Iterator[Exported]: ...

    def close(self) -> None: ...


class Listing:
    """An index in one file: ``content`` makes it of all entries (`Exported.entry`), which stay in memory until then."""

    def __init__(self, name: str, content: Callable[[list[Any]], bytes]) -> None:
        self.name, self._content = name, content
        self._entries: list[Any] = []

    def add(self, exported: Exported, latents: LatentFile) -> None:
        """Add a file's entry."""
        self._entries.append(exported.entry)

    def files(self) -> Iterator[Exported]:
        """Yield the file."""
        yield Exported(self.name, lambda: [self._content(self._entries)])

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


@dataclass(frozen=True)
class Format:
    """A format: the rules it follows, what it can hold, and how to write and read it.

    Attributes:
        write: makes its files; None if it is only imported.
        keeps: the fields of docs/format.md that the format's own readers find in it, in any form.
        note: where our metadata is kept; empty if there is no place for it.
        flipped: where the horizontally flipped copy is kept; empty if there is no place for it.
        needs_flipped: whether its readers fail without one.
        archs: the networks that it names; the first is the default.
        any_arch: whether other names are possible, too.
        dtypes: the names of those that it stores unchanged; others become float32.
        stacked: whether a file holds many latents.
        containers: suffixes of files that hold many latents.
        apart: what distinguishes two latents of one name, apart from their folders.
        by_picture: whether its readers find a file by the name of its picture.
        turns_pictures: whether its readers turn pictures as their EXIF data says.
        merge: adds a file to an existing one, if files are shared; whether it may replace anything.
        folder: the folder of a latent's file, before its name; usually empty.
        squares: whether all latents must be squares of one size.
        index: makes the file that lists all others, if there is one.
        collects: whether that file holds the others, which are not written separately.
        is_cropped: whether a latent shows what the trainer shows of the picture in a bucket of its size.
        ignores: whether a file in a folder, by its name, is another kind of this project's files.
        paired: whether latents can be numbered in the order of their pictures.
        fills_labels: whether a latent without a label gets 0.
        counts_classes: whether its readers number the classes by their folders, in order.
        needs: a library that must be installed.
        write_needs: one that is needed only to write its files.
    """

    name: str
    rules: str
    suffixes: frozenset[str]
    write: Write | None
    read: Callable[[Foreign], Iterator[Found]]
    keeps: frozenset[str] = frozenset()
    note: str = ""
    flipped: str = ""
    needs_flipped: bool = False
    archs: Mapping[str, Network] = field(default_factory=dict)
    any_arch: bool = False
    dtypes: tuple[str, ...] = ("float32",)
    stacked: bool = False
    containers: tuple[str, ...] = ()
    apart: Callable[[LatentFile], object] = lambda latents: ""
    by_picture: bool = False
    turns_pictures: bool = True
    merge: Callable[[bytes, bytes, bool], bytes] | None = None
    folder: Callable[[LatentFile, str], str] = lambda latents, name: ""
    squares: bool = False
    index: Callable[[], Index] | None = None
    collects: bool = False
    is_cropped: Callable[[LatentFile], bool] = lambda latents: True
    ignores: Callable[[str], bool] = lambda name: False
    paired: bool = False
    counts_classes: bool = False
    fills_labels: bool = False
    needs: str = ""
    write_needs: str = ""
    advice: str = ""

    @property
    def is_numbered(self) -> bool:
        """Whether the names of its files are numbers, so that an export of fewer latents leaves others there."""
        return self.stacked or (self.paired and not self.collects)

    @property
    def fills_stores(self) -> bool:
        """Whether all its files hold many latents each, so that an import makes a store."""
        return self.stacked or all(map(self.holds_many, self.suffixes))

    def holds_many(self, name: str) -> bool:
        """Return whether a file holds many latents, by its name."""
        return name.lower().endswith(self.containers)

    def find(self, file: Foreign) -> Iterator[Found]:
        """Yield the latents in a file. Any error that a damaged file causes is raised as LatentFileError."""
        try:
            yield from self.read(file)
        except (AuraVaeError, MemoryError):
            raise
        except Exception as error:  # parsers raise errors of every type on damaged bytes
            reason = f"{type(error).__name__}: {error}"
            raise LatentFileError(f"damaged, or no file of {self.name}: {reason}") from error


def note_of(latents: LatentFile, fold: Network | None = None, **more: str) -> str:
    """Return our metadata for a file of another project, from which import restores the same latent.

    It holds the sha256 of the values that it describes, so it cannot be taken to describe others.
    """
    said: dict[str, Any] = {STORED_AS: latents.dtype.name, SHA256: values_sha256(latents.values)}
    if fold:  # float32 does not survive it bit for bit, so only the result can be recognised
        result = values_sha256(folded(widened(latents), fold))
        said |= {FOLDED: [fold.shift, fold.scale], FOLDED_SHA256: result}
    return latents.metadata(**said, **more)


def notes_of(latents: LatentFile, **more: Iterable[str]) -> Iterator[str]:
    """Yield `note_of` each row of a stack, with its value of each of ``more``."""
    # All hashes first: other threads take turns at each.
    own = {SHA256: [values_sha256(values) for values in latents.values], **more}
    return latents.metadata_of_rows({STORED_AS: latents.dtype.name}, own)


def values_sha256(values: Array) -> str:
    """Return the sha256 of values, in the order and the dtype that they have."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def folded(values: NDArray[np.float32], fold: Network | None) -> NDArray[np.float32]:
    """Return what a trainer's normalisation turns into ``values``, up to rounding."""
    if fold is None:
        return values
    return values / np.float32(fold.scale) + np.float32(fold.shift)


def name_of(record: Record, otherwise: str) -> str:
    """Return a name for a row of a stack: its key, its picture's name, or ``otherwise``."""
    if record.key or not record.source:
        return record.key or otherwise
    return PurePosixPath(record.source).with_suffix("").as_posix()


_read_note = table(
    {
        STORED_AS: StoredDtype,
        SHA256: str,
        FOLDED: tuple[float, float],
        FOLDED_SHA256: str,
        "clamp": float,
    },
    optional=(STORED_AS, SHA256, FOLDED, FOLDED_SHA256, "clamp"),
    others=True,
)


def known(
    values: Array,
    dtype: StoredDtype,
    note: str | dict[str, Any] | None,
    *,
    own_file: bool = False,
) -> LatentFile | None:
    """Return the latent, or the stack [N, C, h, w], that was exported, by the metadata that was kept.

    Values that were widened for the format are narrowed again. None if there is no such metadata, or it
    describes other values: programs that rewrite a file may keep metadata that they do not understand. Metadata
    without a hash is trusted only in an ``own_file``, a latent file of ours.
    ``note`` may be parsed already. Raises LatentHeaderError if it is damaged, or says that a trainer's
    normalisation is folded in, but not into these values: they could be folded or not.
    """
    if note is None:
        return None
    try:
        content = read_json(note) if isinstance(note, str) else note
        found = _read_note(content)
    except ValueError as error:
        raise LatentHeaderError(f"damaged {NOTE!r} metadata: {error}") from error
    if values.ndim == 4 and "rows" not in content:  # one latent, as a video's frame or a batch
        values = values[0] if len(values) == 1 else without_frame(values)
    stored = found.get(STORED_AS, dtype)
    if FOLDED in found:
        return with_metadata(*_unfolded(values, dtype, stored, found), content)
    if stored != dtype and dtype == FLOAT32:
        narrow = stored.exactly(values)
        if narrow is not None:
            values, dtype = narrow, stored
    is_own = own_file and SHA256 not in found
    if not is_own and values_sha256(values) != found.get(SHA256):
        return None
    return with_metadata(values, dtype, content, shard=values.ndim == 4)


def _unfolded(
    values: Array, dtype: StoredDtype, stored: StoredDtype, note: Mapping[str, Any]
) -> tuple[Array, StoredDtype]:
    """Return the values that an export folded a normalisation into. Raises LatentHeaderError if it was others."""
    if dtype == FLOAT32:
        shift, scale = map(np.float32, note[FOLDED])
        limit = np.float32(note.get("clamp", np.inf))  # which rounding may exceed
        unfolded = stored.from_float32(np.clip((values - shift) * scale, -limit, limit))
        if note.get(FOLDED_SHA256) == values_sha256(values):
            return unfolded, stored
        if note.get(SHA256) == values_sha256(unfolded):  # before the result had a hash of its own
            return unfolded, stored
    raise LatentHeaderError(
        f"its {NOTE!r} metadata says that a trainer's normalisation is folded into its values (--for-shift), "
        "but another program has changed them, so that they could be folded or not: export the latent again, "
        "or remove that metadata to import the values as they are"
    )


def says_flipped(name: str) -> bool:
    """Return whether an array is a flipped copy, by its name; then it is never taken for the latent."""
    return "flip" in name.lower()


def latent_among(arrays: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return which array is the latent, by its name: one of the ``usual``, or the only one; None if that is unclear.

    A flipped copy is none.
    """
    able = [name for name in arrays if not says_flipped(name)]
    alone = able[0] if len(able) == 1 else None
    return next((name for name in usual if name in able), alone)


def without_frame(values: Array, ndim: int = 4) -> Array:
    """Return a picture's [..., C, h, w] of a video's [..., C, 1, h, w] with ``ndim`` sides; others unchanged."""
    return values[..., 0, :, :] if values.ndim == ndim and values.shape[-3] == 1 else values


def flipped(latents: LatentFile) -> Array:
    """Return the values of the horizontally flipped latent, by the group action."""
    return act(H, latents.values, latents.space.irreps)


def widened(latents: LatentFile, values: Array | None = None) -> NDArray[np.float32]:
    """Return a latent's values, or others of its dtype, as little-endian float32, exactly."""
    wide = latents.dtype.to_float32(latents.values if values is None else values)
    return np.ascontiguousarray(wide, "<f4")


def as_numpy(latents: LatentFile) -> Array:
    """Return the values in a type that numpy has: bfloat16 as float32, others unchanged."""
    if latents.dtype.name == "bfloat16":
        return widened(latents)
    return np.ascontiguousarray(latents.values)


def dtype_of(values: Array) -> StoredDtype:
    """Return the storage format of a numpy array; one with an unknown name if it is not supported."""
    for dtype in STORED_DTYPES.values():
        if dtype.name != "bfloat16" and dtype.numpy == values.dtype.newbyteorder("<"):
            return dtype
    return StoredDtype(str(values.dtype), "", values.dtype)


def tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a tensor by name. Raises LatentFileError if it is missing."""
    if name not in tensors:
        found = ", ".join(map(repr, list(tensors)[:4])) or "nothing"
        raise LatentFileError(f"no tensor {name!r}: it holds {found}")
    return tensors[name]


def require_values(values: Array) -> None:
    """Raise LatentFileError for an array without values, which could still claim any number of rows."""
    if not values.size:
        raise LatentFileError(f"shape {list(values.shape)}: an array without values")


def each(found: Found) -> Iterator[Found]:
    """Yield the latents of a batch [B, C, h, w], or [B, C, 1, h, w], one by one; a single one unchanged."""
    found = replace(found, values=without_frame(found.values, 5))
    if found.values.ndim != 4:
        yield found
        return
    require_values(found.values)
    several = len(found.values) > 1
    for row, values in enumerate(found.values):
        name = f"{found.name}-{row}" if several else found.name
        yield replace(found, name=name, values=values, known=None if several else found.known)


def label_of(record: Record) -> int | None:
    """Return the class of a picture; None if it has none."""
    label = record.annotations.get("label")
    return label if type(label) is int else None


def original_size(latents: LatentFile) -> tuple[int, int]:
    """Return the (height, width) of the upright source picture."""
    record = latents.records[0]
    return record.source_size or record.image_size


def shown_box(latents: LatentFile, g: GroupElement = E) -> tuple[int, int, int, int, int, int]:
    """Return the place of the latent in the resized picture, as trainers count their crop to buckets.

    That is (width, height) of the source resized to the latent's scale, then (left, top, right, bottom) of
    the latent in it, which exceeds it if the latent was padded. ``g`` is how the picture is seen.
    """
    record = latents.records[0]
    height, width = original_size(latents)
    box = (record.source_box or Box(0, 0, width, height)).act(g, height, width)
    padding = record.padding.act(g @ record.orientation)
    down = record.image_size[0] / (box.bottom - box.top)
    across = record.image_size[1] / (box.right - box.left)
    left, top = round(box.left * across) - padding.left, round(box.top * down) - padding.top
    padded_height, padded_width = padding.padded(*record.image_size)
    scaled = round(width * across), round(height * down)
    return *scaled, left, top, left + padded_width, top + padded_height


def source_name(latents: LatentFile, name: str) -> str:
    """Return the file name of the picture, without folders."""
    return Path(latents.records[0].source or name).name
