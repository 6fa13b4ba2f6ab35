"""The remote VAE protocol of diffusers (``diffusers.utils.remote_utils``), as its clients send it.

Latents come as [B, C, h, w]; as [C, h, w] from SD.Next; or packed by Flux's pipelines, with 2 x 2 cells
in a row of 4 C values: [B, L, 4 C], [L, 4 C]. Unknown keys of the query are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import from_unit, read_image
from auravae_cli.images.write import picture_bytes
from auravae_cli.serve.endpoint import Call, Endpoint
from auravae_cli.serve.parameters import boolean, choice, integer, number, sides
from auravae_cli.serve.refusal import Refusal
from auravae_cli.serve.tensors import BINARY, part_of, pixels_of, read_values, tensor_response

Floats = NDArray[np.float32]
DTYPES = ("float16", "bfloat16", "float32")
FORMATS = {"jpg": (".jpg", "image/jpeg"), "png": (".png", "image/png")}
_SCALE = number(
    "scaling_factor", "Factor of the sent latents: raw latents times this.", 1e-6, 1e6, 1.0
)
_SHIFT = number(
    "shift_factor",
    "Shift of the sent latents, subtracted from raw latents before scaling.",
    -1e6,
    1e6,
    0.0,
)


async def decode(call: Call) -> Response:
    """POST /decode."""
    query, space = call.query, call.service.space
    if query["output_type"] == "mp4":
        raise Refusal(400, "output_type is 'mp4': this model makes pictures; expected pil or pt")
    latents = unpacked(_values(call), space.irreps.dim, query["height"], query["width"])
    pixels = call.service.check_pixels(latents[0, 0].size * space.downsampling_factor**2)
    convert, respond = _output(call, len(latents))
    with np.errstate(over="ignore"):  # the check of what is decoded refuses infinity
        raw = latents / np.float32(query["scaling_factor"]) + np.float32(query["shift_factor"])
    with call.service.pixels.reserved(len(raw) * pixels):
        return respond(await call.service.decode(raw, convert))


def _output(
    call: Call, number: int
) -> tuple[Callable[[Floats], Any], Callable[[list[Any]], Response]]:
    """Return the function that converts a picture [3, H, W], and the one that responds with all of them."""
    query = call.query
    dtype = query["dtype"]
    if query["output_type"] == "pt" and query["partial_postprocess"]:
        return pixels_of, partial(tensor_response, dtype="uint8")
    if query["output_type"] == "pt":
        return partial(part_of, dtype=dtype), partial(tensor_response, dtype=dtype)
    if BINARY in call.accept:  # the client only converts these, so their range is that of pictures
        return (
            lambda image: part_of(np.clip((image + 1) / 2, 0, 1), dtype),
            partial(tensor_response, dtype=dtype),
        )
    if number > 1:
        raise Refusal(
            400, f"{number} latents: one picture is sent at a time; expected output_type=pt"
        )
    by_accept = [name for name, (_, media) in FORMATS.items() if media in call.accept]
    suffix, media = FORMATS[by_accept[0] if len(by_accept) == 1 else query["image_format"]]
    return (
        lambda image: picture_bytes(from_unit(image), suffix),
        lambda contents: Response(contents[0], media_type=media),
    )


async def encode(call: Call) -> Response:
    """POST /encode: a picture file, or raw values if there is a shape."""
    is_file = call.query["shape"] is None
    images = None if is_file else _pixels(call)
    pixels = await call.service.picture_pixels(call.body) if images is None else images[:, 0].size
    with call.service.pixels.reserved(pixels):
        if images is None:
            images = await call.service.in_thread(_picture, call)
        shift, scale = (np.float32(call.query[f"{name}_factor"]) for name in ("shift", "scaling"))
        dtype = call.query["dtype"] or "float16"
        parts = await call.service.encode(images, lambda z: part_of((z - shift) * scale, dtype))
        return tensor_response(parts, dtype)


def _picture(call: Call) -> Floats:
    """Read a picture file as [1, 3, H', W'], its sides padded to multiples of the factor."""
    loaded = read_image(call.body, max_pixels=call.service.limits.pixels)
    return Preparation().apply(loaded, call.service.space.downsampling_factor).padded[None]


def _pixels(call: Call) -> Floats:
    """Read raw values [B, 3, H, W] or [3, H, W] in [-1, 1]."""
    images, factor = _values(call), call.service.space.downsampling_factor
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != 3 or any(s % factor for s in images.shape[2:]):
        shape = call.query["shape"]
        raise Refusal(
            422,
            f"shape {shape}: expected [B, 3, H, W] or [3, H, W], sides in multiples of {factor}",
        )
    call.service.check_pixels(images[0, 0].size)
    return images


def _values(call: Call) -> Floats:
    shape, dtype = call.query["shape"], call.query["dtype"]
    if shape is None or dtype is None:
        missing = "shape" if shape is None else "dtype"
        raise Refusal(400, f"{missing} is missing: raw values need both shape and dtype")
    return read_values(call.body, shape, dtype)


def unpacked(latents: Floats, channels: int, height: int | None, width: int | None) -> Floats:
    """Return latents of any of the layouts as [B, C, h, w]. Raises Refusal (422)."""
    shape = latents.shape
    if len(shape) == 4 and shape[1] == channels:
        return latents
    rows, columns = ((side or 0) // 16 for side in (height, width))  # of 2 x 2 cells
    if len(shape) in (2, 3) and shape[-2:] == (rows * columns, 4 * channels):
        blocks = latents.reshape(-1, rows, columns, channels, 2, 2)
        cells = blocks.transpose(0, 3, 1, 4, 2, 5)
        return np.ascontiguousarray(cells).reshape(-1, channels, 2 * rows, 2 * columns)
    if len(shape) == 3 and shape[0] == channels:
        return latents[None]
    raise Refusal(
        422,
        f"shape {list(shape)}: expected [B, {channels}, h, w], [{channels}, h, w], or packed "
        f"[B, L, {4 * channels}] with the height and width of which L is height / 16 x width / 16",
    )


_DTYPE = choice("dtype", "Format of raw values, in the request and the response.", DTYPES)
ENDPOINTS = (
    Endpoint(
        "POST",
        "/decode",
        "Decode latents, as remote_decode of diffusers and SD.Next request it.",
        decode,
        (
            sides("shape", "Shape of the latents: [B, C, h, w], [C, h, w], or packed [B, L, 4 C]."),
            _DTYPE,
            choice("output_type", "Picture (pil) or tensor (pt).", ("pil", "pt", "mp4"), "pil"),
            choice("image_format", "Format of the picture.", tuple(FORMATS), "jpg"),
            boolean("partial_postprocess", "Return the tensor as uint8 [B, H, W, 3]."),
            _SCALE,
            _SHIFT,
            boolean("do_scaling", "Has no effect: latents here are raw."),
            integer("height", "Height of the picture, for packed latents.", 1, 1 << 20),
            integer("width", "Width of the picture, for packed latents.", 1, 1 << 20),
        ),
        takes=(BINARY,),
        gives=(BINARY, "image/jpeg", "image/png"),
        ignores_unknown=True,
    ),
    Endpoint(
        "POST",
        "/encode",
        "Encode a picture file or raw values in [-1, 1], as remote_encode of diffusers requests it.",
        encode,
        (sides("shape", "Shape of raw values: [B, 3, H, W] or [3, H, W]."), _DTYPE, _SCALE, _SHIFT),
        takes=("application/octet-stream", "image/png"),
        gives=(BINARY,),
        ignores_unknown=True,
    ),
)
