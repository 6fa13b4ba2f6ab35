"""litData's chunks: ``chunk-0-0.bin`` and ``index.json``, a sample per latent, whose values are a tensor.

Rules: Lightning-AI/litData 0.2.76, litdata/streaming/writer.py, item_loader.py (PyTreeLoader) and
serializers.py. A sample is a table of fixed names: the sizes of its fields, then the fields. Only
``index.json`` says what the fields are; a chunk without one is read if auravae wrote it. litData's writer
cannot write bfloat16, but its reader reads it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
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
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import open_regular, read_within, view_of
from auravae_cli.files.typed import reader, shown, table
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32, Array, StoredDtype
from auravae_cli.latents.latent_file import LatentFile

INDEX = "index.json"
_KINDS = {NOTE: "str", CAPTION: "str", KEY: "str", LABEL: "int", VALUES: "tensor"}
_TENSORS = {0: FLOAT32, 1: FLOAT32, 8: FLOAT16, 9: FLOAT16, 10: BFLOAT16}
_ARRAYS = {8: FLOAT16, 9: FLOAT32}
_WRITTEN = {FLOAT32: 1, FLOAT16: 9, BFLOAT16: 10}


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield the chunks of a stack, usually one."""
    shape = latents.values.shape[1:]
    code = struct.pack(f">{2 + len(shape)}I", _WRITTEN[latents.dtype], len(shape), *shape)
    size = latents.values[:1].nbytes
    heads = []
    for texts in texts_of(latents, names):
        sizes = [*map(len, texts), len(code) + size]
        heads.append(struct.pack(f"<{len(sizes)}I", *sizes) + b"".join([*texts, code]))
    values = lambda row: np.ascontiguousarray(latents.values[row]).data  # noqa: E731
    for file in files_of(heads, size, values):
        name = f"chunk-{file.part}-{number}.bin"
        entry = {
            "chunk_bytes": file.nbytes,
            "chunk_size": file.samples,
            "dim": None,
            "filename": name,
        }
        yield Exported(name, file.pieces, entry)


def _index(chunks: list[Any]) -> bytes:
    """Return ``index.json``, as its writer writes it: the chunks, and what a sample is."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    context = json.dumps(list(_KINDS))
    spec = {"type": "builtins.dict", "context": context, "children_spec": [leaf] * len(_KINDS)}
    config = {
        "chunk_bytes": None,
        "chunk_size": max(chunk["chunk_size"] for chunk in chunks),
        **dict.fromkeys(("compression", "compression_batch_size", "compression_level")),
        "data_format": list(_KINDS.values()),
        "data_spec": json.dumps([1, spec]),
        **dict.fromkeys(("encryption", "ipc_compression")),
        "item_loader": "PyTreeLoader",
        "types": _KINDS,
    }
    return json.dumps({"chunks": chunks, "config": config}, sort_keys=True).encode()


def read(file: Foreign) -> Iterator[Found]:
    """Yield every sample that has an array; other fields than captions, labels and keys are ignored."""
    content = view_of(file.content)
    kinds = read_index(Path(file.root, file.name).parent)
    name = _latents_among(kinds or _KINDS)
    ends = places(content)
    for row, (begin, end) in enumerate(pairwise(ends)):
        found = _found(content[begin:end], kinds or _KINDS, name, f"{file.stem}/{row:06d}")
        if kinds is None and not found.known:
            reason = found.fault or f"what its fields are stands in {INDEX}, which is not beside it"
            found = Found.unusable(found.name, reason)
        yield found


def read_index(folder: Path) -> dict[str, str] | None:
    """Return the fields of a folder's samples and how each is stored; None without an index.

    Raises LatentFileError if it is damaged, or its samples are not tables.
    """
    path = folder / INDEX
    try:
        return _read_index(path, path.stat().st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return None


@lru_cache(maxsize=4)
def _read_index(path: Path, version: int) -> dict[str, str]:
    try:
        with open_regular(path) as file:
            content = read_json(read_within(file, FILE_BYTES, LatentFileError))
        config = _read_config(_read_top(content)["config"])
        _, spec = _read_version(read_json(config["data_spec"]))
        spec = _read_leaves(spec)
        names = [VALUES] if spec["type"] is None else _read_names(read_json(spec["context"] or ""))
        kinds = dict(zip(names, config["data_format"], strict=True))
    except OSError as error:
        raise LatentFileError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LatentFileError(f"{path}: its samples are no tables of fields: {error}") from error
    if config["compression"] or config["encryption"]:
        raise LatentFileError(f"{path}: its chunks are compressed or encrypted")
    return kinds


def _latents_among(kinds: dict[str, str]) -> str:
    arrays = [name for name, kind in kinds.items() if kind in ("tensor", "numpy")]
    name = latent_among(arrays, NAMES)
    if name is None:
        raise LatentFileError(f"no tensor {VALUES!r}: its samples have {shown(kinds)}")
    return name


def _found(sample: memoryview, kinds: dict[str, str], name: str, otherwise: str) -> Found:
    """Return the latent of a sample; a damaged one fails alone."""
    try:
        sizes = struct.unpack_from(f"<{len(kinds)}I", sample)
        start, fields, dtype = 4 * len(kinds), dict[str, Any](), FLOAT32
        for (field, kind), size in zip(kinds.items(), sizes, strict=True):
            content, start = sample[start : start + size], start + size
            if start > len(sample):
                raise LatentFileError(f"{field} ends beyond its sample")
            fields[field] = UNREAD
            if field == name:
                fields[field], dtype = _array(kind, content)
            elif kind in ("str", "string") and field in FIELDS:
                fields[field] = str(content, "utf-8")
            elif kind == "int" and field in FIELDS:
                (fields[field],) = struct.unpack("<q", content)
        return found_in(fields, fields[name], dtype, otherwise)
    except (ValueError, struct.error, LatentFileError) as error:
        return Found.unusable(otherwise, error)


def _array(kind: str, content: memoryview) -> tuple[Array, StoredDtype]:
    """Return a tensor or an array with its type and shape in front."""
    order, codes = (">", _TENSORS) if kind == "tensor" else ("<", _ARRAYS)
    code, sides = struct.unpack_from(f"{order}2I", content)
    shape, start = struct.unpack_from(f"{order}{sides}I", content, 8), 8 + 4 * sides
    if code not in codes:
        raise LatentFileError(f"values of type {code}: expected floats of 16 or 32 bits")
    dtype = codes[code]
    if len(content) - start != math.prod(shape) * dtype.numpy.itemsize:
        raise LatentFileError(f"{len(content) - start} bytes are not {list(shape)} of {dtype.name}")
    values: Array = np.frombuffer(content, dtype.numpy, offset=start)
    require_values(values)
    return values.reshape(shape), dtype


_read_top = table({"config": dict[str, Any]}, others=True)
_read_config = table(
    {
        "data_format": tuple[str, ...],
        "data_spec": str,
        "compression": str | None,
        "encryption": Any,
    },
    others=True,
)
_read_names, _read_version = reader(tuple[str, ...]), reader(tuple[int, dict[str, Any]])
_read_leaves = table({"type": str | None, "context": str | None}, others=True)


FORMAT = Format(
    name="litdata",
    rules="Lightning-AI/litData 0.2.76, litdata/streaming",
    suffixes=frozenset((".bin",)),
    containers=(".bin",),
    write=write,
    read=read,
    keeps=frozenset(("caption", "label", "key", "stored_dtype")),
    note="the field 'auravae'",
    dtypes=("float16", "bfloat16", "float32"),
    stacked=True,
    index=lambda: Listing(INDEX, _index),
    advice="a latent without a caption has an empty one, without a label -1; `auravae_cli.flip_hook` flips",
)
