"""MosaicML streaming's MDS: ``shard.00000.mds`` and ``index.json``, a sample per latent.

Rules: mosaicml/streaming 0.13, streaming/base/format/mds/writer.py and encodings.py. A shard lists its
columns in JSON before the samples. A sample starts with the sizes of its fields of variable length; the
fields follow, in the order of their names. MDS has no bfloat16, which becomes float32, exactly.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    Listing,
    as_numpy,
    latent_among,
    require_values,
)
from auravae_cli.exchange.formats.samples import (
    CAPTION,
    FIELDS,
    KEY,
    LABEL,
    NAMES,
    UNREAD,
    VALUES,
    files_of,
    found_in,
    places,
    texts_of,
)
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.limits import TEXT_BYTES
from auravae_cli.files.mapping import view_of
from auravae_cli.files.typed import shown, table
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile

_VERSION = 2
_INTEGERS = {"int": "<i8"} | {
    f"{sign}int{8 * n}": f"<{sign or 'i'}{n}" for sign in ("", "u") for n in (1, 2, 4, 8)
}
_NUMBERS = _INTEGERS | {f"float{8 * n}": f"<f{n}" for n in (2, 4, 8)}
_READ = {"str", "str_int", "json", *_NUMBERS}  # pickles are never loaded
_CODES = {18: "float16", 34: "float32", 66: "float64"}  # of arrays that say their own type


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield the shards of a stack, usually one."""
    heads = [_head(texts) for texts in texts_of(latents, names)]
    first = as_numpy(latents.row(0))
    columns = dict.fromkeys((NOTE, CAPTION, KEY), "str") | {
        LABEL: "int",
        VALUES: f"ndarray:{first.dtype.name}:{','.join(map(str, first.shape))}",
    }
    shard = {
        "column_encodings": list(columns.values()),
        "column_names": list(columns),
        "column_sizes": [None, None, None, 8, first.nbytes],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": _VERSION,
    }
    start = json.dumps(shard, sort_keys=True).encode()
    for file in files_of(heads, first.nbytes, lambda row: as_numpy(latents.row(row)).data, start):
        name = f"shard.{number:05d}{f'-{file.part}' if file.part else ''}.mds"
        raw = {"basename": name, "bytes": file.nbytes, "hashes": {}}
        entry = shard | {"raw_data": raw, "samples": file.samples, "zip_data": None}
        yield Exported(name, file.pieces, entry)


def _head(texts: list[bytes]) -> bytes:
    """Return a sample's bytes before its latent."""
    sizes = [len(text) for text in texts[:-1]]  # a label has eight bytes
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(texts)


def _index(shards: list[Any]) -> bytes:
    """Return ``index.json``: the shards, as its writer writes it."""
    return json.dumps({"shards": shards, "version": _VERSION}, sort_keys=True).encode()


def read(file: Foreign) -> Iterator[Found]:
    """Yield every sample that has an array; other fields than captions, labels and keys are ignored."""
    content = view_of(file.content)
    ends = places(content)
    start = 4 * (len(ends) + 1)
    TEXT_BYTES.check(ends[0] - start, LatentFileError)
    try:
        found = _read_columns(read_json(bytes(content[start : ends[0]])))
        columns = list(
            zip(*(found[f"column_{of}"] for of in ("names", "encodings", "sizes")), strict=True)
        )
        if any(size is not None and size < 0 for *_, size in columns):
            raise ValueError("a size below 0")
    except ValueError as error:
        raise LatentFileError(f"no MDS, or damaged columns: {error}") from error
    name = _latents_among({name: encoding for name, encoding, _ in columns})
    for row, (begin, end) in enumerate(pairwise(ends)):
        yield _found(content[begin:end], columns, name, f"{file.stem}/{row:06d}")


def _latents_among(encodings: dict[str, str]) -> str:
    """Return the name of the column of latents."""
    arrays = [name for name, encoding in encodings.items() if encoding.startswith("ndarray")]
    name = latent_among(arrays, NAMES)
    if name is None:
        raise LatentFileError(f"no column {VALUES!r} of arrays: it has {shown(encodings)}")
    return name


def _found(
    sample: memoryview, columns: Sequence[tuple[str, str, int | None]], name: str, otherwise: str
) -> Found:
    """Return the latent of a sample; a damaged one fails alone."""
    try:
        sizes = iter(struct.unpack_from(f"<{sum(size is None for *_, size in columns)}I", sample))
        start = 4 * sum(size is None for *_, size in columns)
        fields: dict[str, Any] = {}
        for column, encoding, size in columns:
            end = start + (next(sizes) if size is None else size)
            if end > len(sample):
                raise LatentFileError(f"{column} ends beyond its sample")
            fields[column] = _value(encoding, sample[start:end], column in (*FIELDS, name))
            start = end
        return found_in(fields, fields[name], None, otherwise)
    except (ValueError, struct.error, LatentFileError) as error:
        return Found.unusable(otherwise, error)


def _value(encoding: str, content: memoryview, is_wanted: bool) -> Any:
    if is_wanted and encoding.startswith("ndarray"):
        return _array(encoding, content)
    if not is_wanted or encoding not in _READ:
        return UNREAD
    if encoding in _NUMBERS:
        return np.frombuffer(content, _NUMBERS[encoding])[0].item()
    text = str(content, "utf-8")
    return read_json(text) if encoding == "json" else text


def _array(encoding: str, content: memoryview) -> Array:
    """Return an array, whose type and shape the column says, or the array itself."""
    name, shape = _kind(encoding)
    at = 0
    if name is None:
        name, at = _CODES.get(content[0], "another type"), 1
    if shape is None:
        sides, kind = content[at] >> 2, f"<u{1 << (content[at] & 3)}"
        shape = tuple(np.frombuffer(content, kind, sides, at + 1).tolist())
        at += 1 + sides * np.dtype(kind).itemsize
    if name not in _CODES.values():
        raise LatentFileError(f"values are {name}: expected one of {', '.join(_CODES.values())}")
    if len(content) - at != math.prod(shape) * np.dtype(name).itemsize:
        raise LatentFileError(f"{len(content) - at} bytes are not {list(shape)} of {name}")
    values: Array = np.frombuffer(content, np.dtype(name).newbyteorder("<"), offset=at)
    require_values(values)
    return values.reshape(shape)


@lru_cache(64)
def _kind(encoding: str) -> tuple[str | None, tuple[int, ...] | None]:
    """Return the type and the shape that an encoding gives all its arrays."""
    _, *said = encoding.split(":")
    shape = tuple(int(side) for side in said[1].split(",")) if said[1:] else None
    return (said[0] if said else None), shape


_read_columns = table(
    {
        "column_names": tuple[str, ...],
        "column_encodings": tuple[str, ...],
        "column_sizes": tuple[int | None, ...],
    },
    others=True,
)


FORMAT = Format(
    name="mds",
    rules="mosaicml/streaming 0.13, streaming/base/format/mds",
    suffixes=frozenset((".mds",)),
    containers=(".mds",),
    write=write,
    read=read,
    keeps=frozenset(("caption", "label", "key", "stored_dtype")),
    note="the column 'auravae'",
    dtypes=("float16", "float32"),
    stacked=True,
    index=lambda: Listing("index.json", _index),
    advice="a latent without a caption has an empty one, without a label -1; `auravae_cli.flip_hook` flips",
)
