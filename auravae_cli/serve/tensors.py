"""Tensors as raw little-endian values, with shape and dtype in the query or in headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from auravae_cli.files.canonical_json import write_json
from auravae_cli.images.read import from_unit
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


class Part(NamedTuple):
    """One item of a tensor, as it is sent."""

    shape: tuple[int, ...]
    content: bytes


def part_of(values: NDArray[np.float32], dtype: str) -> Part:
    """Round an item to ``dtype``. Raises Refusal (422) if values overflow."""
    stored = STORED_DTYPES[dtype].from_float32(values)
    if dtype == "float16" and not np.isfinite(stored).all():
        raise Refusal(422, "some values are too large for float16: send dtype=float32 or bfloat16")
    return Part(stored.shape, stored.tobytes())


def pixels_of(image: NDArray[np.float32]) -> Part:
    """Convert a picture [3, H, W] to uint8 [H, W, 3]."""
    pixels = from_unit(image)
    return Part(pixels.shape, pixels.tobytes())


def tensor_response(parts: Sequence[Part], dtype: str) -> Response:
    """Respond with items of equal shape, stacked."""
    headers = {"shape": write_json([len(parts), *parts[0].shape]), "dtype": dtype}
    return Response(b"".join(part.content for part in parts), 200, headers, BINARY)
