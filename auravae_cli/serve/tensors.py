"""Tensors as raw little-endian values, with shape and dtype in the query or in headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from auravae_cli.files.canonical_json import write_json
from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.serve.refusal import Refusal

BINARY = "tensor/binary"


def read_values(body: bytes, shape: list[int], dtype: str) -> NDArray[np.float32]:
    """Read a body as float32. Raises Refusal (422) if its size does not fit, or values are not finite."""
    stored = STORED_DTYPES[dtype]
    expected = math.prod(shape) * stored.numpy.itemsize
    if len(body) != expected:
        raise Refusal(
            422, f"{len(body)} bytes: expected {expected} for shape {shape} of {dtype}, raw values"
        )
    values = stored.to_float32(np.frombuffer(body, stored.numpy)).reshape(shape)
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise Refusal(422, f"{bad} of {values.size} values are NaN or infinite")
    return values


def float_response(values: Sequence[NDArray[np.float32]], dtype: str) -> Response:
    """Respond with equal shapes, stacked and rounded to ``dtype``. Raises Refusal if that overflows."""
    stored = [STORED_DTYPES[dtype].from_float32(one) for one in values]
    if dtype == "float16" and not all(np.isfinite(one).all() for one in stored):
        raise Refusal(422, "some values are too large for float16: send dtype=float32 or bfloat16")
    return _response(stored, dtype)


def uint8_response(pixels: Sequence[NDArray[np.uint8]]) -> Response:
    """Respond with 8-bit pictures of equal shapes, stacked."""
    return _response(pixels, "uint8")


def _response(arrays: Sequence[NDArray[Any]], dtype: str) -> Response:
    headers = {"shape": write_json([len(arrays), *arrays[0].shape]), "dtype": dtype}
    return Response(b"".join(array.tobytes() for array in arrays), 200, headers, BINARY)
