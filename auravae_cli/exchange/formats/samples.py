"""What MDS and litData share: files of samples with named fields, which begin with the offset of each sample.

::

    number of samples, uint32 | where each starts, and the end, uint32 | sample | sample | ...

Their own writers are not called: the packages bring torchvision, and pin older releases of numpy. The
bytes are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.annotations import (
    CAPTION as CAPTION,
    KEY as KEY,
    LABEL as LABEL,
    annotations_from,
    is_missing,
    key_from,
)
from auravae_cli.exchange.formats.base import (
    NOTE,
    Found,
    dtype_of,
    known,
    label_of,
    notes_of,
)
from auravae_cli.latents.dtypes import Array, StoredDtype
from auravae_cli.latents.latent_file import LatentFile

VALUES = "latent"
FIELDS = (NOTE, CAPTION, KEY, LABEL, VALUES)  # sorted; the latent is the last
NAMES = (VALUES, "latents", "z")  # names that others use for latents
UNREAD = object()  # the value of a field whose type is not read
_NO_LABEL = -1
_FILE_BYTES = 1 << 30  # of samples in a file, which counts them with four bytes


def texts_of(latents: LatentFile, names: Sequence[str]) -> Iterator[list[bytes]]:
    """Yield each row's fields before the latent: text, and the label as eight bytes; -1 if there is none."""
    for record, name, note in zip(latents.records, names, notes_of(latents), strict=True):
        label, caption = label_of(record), str(record.annotations.get(CAPTION, ""))
        yield [
            note.encode(),
            caption.encode(errors="replace"),
            name.encode(errors="replace"),
            struct.pack("<q", _NO_LABEL if label is None else label),
        ]


@dataclass(frozen=True)
class SampleFile:
    """A file of samples: its place among those of a stack, how many it has, and its bytes."""

    part: int
    samples: int
    nbytes: int
    pieces: Callable[[], Iterator[bytes | memoryview]]


def files_of(
    heads: Sequence[bytes],
    size: int,
    values: Callable[[int], memoryview],
    between: bytes = b"",
) -> Iterator[SampleFile]:
    """Yield the files of samples, usually one.

    A sample is its head and its ``values``, of ``size`` bytes; ``between`` is written before the samples.
    """
    for part, of in enumerate(_parts_of([len(head) + size for head in heads])):
        start = _header([len(heads[row]) + size for row in of], between)

        def pieces(of: range = of, start: bytes = start) -> Iterator[bytes | memoryview]:
            yield start
            for row in of:
                yield heads[row]
                yield values(row)

        nbytes = len(start) + sum(len(heads[row]) + size for row in of)
        yield SampleFile(part, len(of), nbytes, pieces)


def _parts_of(sizes: Sequence[int]) -> Iterator[range]:
    """Yield runs of samples that go into one file, by their sizes."""
    start, total = 0, 0
    for number, size in enumerate(sizes):
        if number > start and total + size > _FILE_BYTES:
            yield range(start, number)
            start, total = number, 0
        total += size
    yield range(start, len(sizes))


def _header(sizes: Sequence[int], between: bytes) -> bytes:
    """Return the bytes before the samples; ``between`` follows their offsets."""
    first = 4 * (len(sizes) + 2) + len(between)
    ends = first + np.concatenate([[0], np.cumsum(sizes)])
    return struct.pack("<I", len(sizes)) + ends.astype("<u4").tobytes() + between


def places(content: memoryview) -> list[int]:
    """Return where each sample starts, and the end. Raises LatentFileError."""
    try:
        (count,) = struct.unpack_from("<I", content)
        found = np.frombuffer(content, "<u4", count + 1, 4).astype(np.int64)
    except (struct.error, ValueError) as error:
        raise LatentFileError(f"damaged or cut off: {error}") from error
    if found[0] < 4 * (count + 2) or (np.diff(found) < 0).any() or found[-1] != len(content):
        raise LatentFileError("damaged or cut off: samples that are not where its start says")
    places: list[int] = found.tolist()
    return places


def found_in(
    fields: Mapping[str, Any], values: Array, dtype: StoredDtype | None, name: str
) -> Found:
    """Return the latent of a sample by its fields. Raises LatentHeaderError if our note is damaged."""
    dtype = dtype or dtype_of(values)
    note, label = fields.get(NOTE), fields.get(LABEL)
    no_label = type(label) is int and label == _NO_LABEL
    annotations, refused = annotations_from(fields.get(CAPTION), None if no_label else label)
    key, no_key = key_from(fields.get(KEY))
    refused += no_key
    refused += () if is_missing(note) or isinstance(note, str) else (NOTE,)
    own = (NOTE, CAPTION, KEY, LABEL)
    others = (name for name, value in fields.items() if name not in own and value is not values)
    latent = known(values, dtype, note if isinstance(note, str) and note else None)
    facts = {"annotations": annotations}
    return Found(key or name, values, dtype, latent, facts, (*others, *refused))
