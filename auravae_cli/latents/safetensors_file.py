"""The safetensors container, read and written with numpy only.

The layout (huggingface/safetensors): 8 bytes, little endian, the header's length n; n bytes of
JSON, which maps each tensor's name to its dtype, shape and byte range, and ``__metadata__`` to
strings; the tensors' bytes, without gaps. This module exists because safetensors' numpy reader
has no bfloat16, and its writer does not order metadata, honour the umask, or stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.files.kinds import START_BYTES, kind_of
from auravae_cli.files.mapping import Buffer
from auravae_cli.latents.dtypes import FLOAT16, FLOAT32, STORED_DTYPES, Array, StoredDtype

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPE_OF_CODE = {dtype.code: dtype for dtype in STORED_DTYPES.values()}
INT64 = StoredDtype("int64", "I64", np.dtype("<i8"))
_NUMPY_OF_CODE = {"F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file; its values are a view of the file's bytes."""

    dtype: StoredDtype
    values: Array


def parse(buffer: Buffer, *, any_dtype: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file, without copying.

    With ``any_dtype``, tensors may have other types than latents do; types that numpy lacks are
    returned as bytes.

    Raises:
        LatentFileError: the bytes are not a safetensors file, or its header does not fit them.
    """
    header, start = _header(buffer)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise LatentFileError("damaged header: its metadata must map names to strings")
    tensors, end = {}, start
    entries = {name: _entry(name, entry, any_dtype) for name, entry in header.items()}
    for name, (dtype, shape, begin, stop) in sorted(entries.items(), key=lambda item: item[1][3]):
        found = f"bytes {begin} to {stop} of {len(buffer) - start}"
        if begin + start != end or stop + start > len(buffer):
            raise LatentFileError(
                f"damaged header: {name!r} claims {found}; the file may be cut off"
            )
        size = math.prod(shape) * dtype.numpy.itemsize
        if stop - begin != size:
            raise LatentFileError(
                f"damaged header: {name!r} claims {found}, its shape needs {size}"
            )
        values = np.frombuffer(buffer, dtype.numpy, math.prod(shape), start + begin)
        try:
            tensors[name] = Tensor(dtype, values.reshape(shape))
        except ValueError as error:  # too many axes, or huge ones beside an empty one
            raise LatentFileError(f"damaged header: {name!r} has an impossible shape") from error
        end = start + stop
    if end != len(buffer):
        raise LatentFileError(f"damaged file: {len(buffer) - end} bytes follow the last tensor")
    return tensors, metadata


def header_bytes(
    tensors: Mapping[str, tuple[StoredDtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """Return the bytes before the tensors, given in their order; equal arguments give equal bytes.

    Raises LatentFileError if the header is longer than readers accept.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    begin = 0
    for name, (dtype, shape) in tensors.items():
        end = begin + math.prod(shape) * dtype.numpy.itemsize
        header[name] = {"dtype": dtype.code, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = write_json(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the values, so they can be memory-mapped
    if len(text) > MAX_HEADER_BYTES:
        raise LatentFileError(
            f"a header of {len(text)} bytes, captions and metadata included: safetensors allows "
            f"{MAX_HEADER_BYTES}"
        )
    return len(text).to_bytes(8, "little") + text


def pack(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return a complete file of float16 and float32 arrays."""
    dtypes = {dtype.numpy: dtype for dtype in (FLOAT16, FLOAT32)}
    entries = {name: (dtypes[array.dtype], array.shape) for name, array in arrays.items()}
    return header_bytes(entries, metadata) + b"".join(a.tobytes() for a in arrays.values())


def _header(buffer: Buffer) -> tuple[dict[str, Any], int]:
    """Return the header's JSON, and the offset of the tensors' bytes."""
    if len(buffer) == 0:
        raise LatentFileError("the file is empty: expected a safetensors file")
    length = int.from_bytes(bytes(buffer[:8]), "little")
    if len(buffer) < 10 or length > min(len(buffer) - 8, MAX_HEADER_BYTES) or buffer[8] != ord("{"):
        other = None if buffer[8:9] == b"{" else kind_of(bytes(buffer[:START_BYTES]))
        cut = f"not a safetensors file, or one that is cut off: {len(buffer)} bytes"
        raise LatentFileError(str(other or cut))
    try:
        header = read_json(bytes(buffer[8 : 8 + length]))
    except ValueError as error:
        raise LatentFileError(f"damaged header: {error}") from error
    if not isinstance(header, dict):
        raise LatentFileError("damaged header: expected a table of tensors")
    return header, 8 + length


def _entry(name: str, entry: Any, any_dtype: bool) -> tuple[StoredDtype, tuple[int, ...], int, int]:
    """Return a tensor's dtype, shape and byte range from its JSON."""
    try:
        code, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, stop]
    except (TypeError, KeyError, ValueError):
        raise LatentFileError(
            f"damaged header: {name!r} has no dtype, shape and data_offsets"
        ) from None
    if (
        any(type(number) is not int or not 0 <= number < 2**48 for number in numbers)
        or begin > stop
    ):
        raise LatentFileError(f"damaged header: {name!r} has impossible sizes {numbers}")
    dtype = _DTYPE_OF_CODE.get(code) if isinstance(code, str) else None
    if dtype is None and any_dtype and isinstance(code, str):
        if code not in _NUMPY_OF_CODE:
            return StoredDtype(code, code, np.dtype("u1")), (stop - begin,), begin, stop
        dtype = StoredDtype(code, code, np.dtype(_NUMPY_OF_CODE[code]))
    if dtype is None:
        raise LatentFileError(
            f"tensor {name!r} has dtype {code!r}: expected one of {', '.join(_DTYPE_OF_CODE)}"
        )
    return dtype, tuple(shape), begin, stop
