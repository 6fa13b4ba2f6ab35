"""Tensors as raw little-endian values, with their shape and dtype told beside them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from auravae_cli.files.canonical_json import write_json
from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.serve.refusal import Refusal

BINARY = "tensor/binary"


def read_values(body: bytes, shape: list[int], dtype: str) -> NDArray[np.float32]:
    """The values of a body as float32. Raises Refusal where it is not of that shape and dtype."""
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


def float_response(values: NDArray[np.float32], dtype: str) -> Response:
    """Values as they are sent, rounded to a dtype."""
    return _response(STORED_DTYPES[dtype].from_float32(values), dtype)


def uint8_response(pixels: NDArray[np.uint8]) -> Response:
    """Likewise for 8-bit pixels."""
    return _response(pixels, "uint8")


def _response(values: NDArray[Any], dtype: str) -> Response:
    headers = {"shape": write_json(list(values.shape)), "dtype": dtype}
    return Response(np.ascontiguousarray(values).tobytes(), 200, headers, BINARY)
