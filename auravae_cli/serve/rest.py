"""The REST interface: files in, files out, with the same bytes as the commands."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from auravae_cli.errors import LatentFileError
from auravae_cli.files.canonical_json import write_json
from auravae_cli.images.contact_sheet import contact_sheet
from auravae_cli.images.prepare import Preparation, PreparedImage
from auravae_cli.images.read import LoadedImage, read_image, to_8_bit
from auravae_cli.images.write import picture_bytes
from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.latents.latent_file import LatentFile, flipped_chunks, parse_latents
from auravae_cli.model.codec import Codec, add_noise, finish
from auravae_cli.operations.decode import DecodeOptions, check_space, provenance_of
from auravae_cli.operations.describe import describe
from auravae_cli.operations.encode import EncodeOptions
from auravae_cli.operations.roundtrip import RoundTrip, cells, roundtrip
from auravae_cli.operations.views import view_latent
from auravae_cli.serve.endpoint import Call
from auravae_cli.serve.refusal import Refusal
from auravae_cli.serve.service import Floats
from auravae_cli.symmetry.group import GROUP, GroupElement

LATENT = "application/vnd.safetensors"
MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "tiff": "image/tiff"}


async def encode(call: Call) -> Response:
    """POST /v1/encode: `auravae encode`."""
    pixels = await call.service.picture_pixels(call.body, _preparation(call))
    with call.service.pixels.reserved(pixels):
        prepared = await call.service.in_thread(_prepared, call)
        dtype = STORED_DTYPES[call.query["latent_dtype"]]

        def stored(values: Floats) -> bytes:
            return call.service.codec.store(values, prepared, dtype, None).to_bytes()

        (content,) = await call.service.encode(prepared.padded[None], stored)
        return Response(content, 200, _noted(prepared.loaded.notices), LATENT)


async def decode(call: Call) -> Response:
    """POST /v1/decode: `auravae decode`."""
    latent = single(call)
    check_space(latent, call.service.codec, any_model=False)
    suffix = f".{call.query['format']}"
    with call.service.pixels.reserved(_decoded_pixels(call, latent)):
        values = add_noise(latent.to_float32()[None], call.query["noise"], call.query["seed"])

        def written(image: Floats) -> bytes:
            bits, quality = int(call.query["bits"]), call.query["quality"]
            options = DecodeOptions(suffix, bits, quality, call.query["noise"], call.query["seed"])
            note = provenance_of(call.body, call.service.codec, options, suffix)
            return picture_bytes(
                finish(latent, image, bits), suffix, quality=quality, provenance=note
            )

        (content,) = await call.service.decode(values, written)
        return Response(content, media_type=MEDIA[call.query["format"]])


async def flip(call: Call) -> Response:
    """POST /v1/flip: `auravae flip`, of a latent or of a shard, without the model."""
    g = GroupElement.parse(call.query["by"])

    def flipped() -> bytes:
        return b"".join(bytes(part) for part in flipped_chunks(parse_latents(call.body), g))

    return Response(await call.service.in_thread(flipped), media_type=LATENT)


async def info(call: Call) -> Response:
    """POST /v1/info: `auravae info --json`."""

    def facts() -> dict[str, Any]:
        return describe(parse_latents(call.body))

    return JSONResponse(await call.service.in_thread(facts))


async def preview(call: Call) -> Response:
    """POST /v1/preview: `auravae show -o`, of a latent."""
    latent = single(call)
    pixels = _decoded_pixels(call, latent) * (len(latent.values) if call.query["channels"] else 1)
    if pixels > call.service.pixels.limit:
        raise Refusal(413, "the maps of all channels are too large: leave channels out")
    with call.service.pixels.reserved(pixels):

        def drawn() -> bytes:
            pictures, _, _ = view_latent(latent, call.query["channels"])
            sheet = pictures[0][1] if len(pictures) == 1 else contact_sheet(pictures, columns=4)
            return picture_bytes(sheet, ".png")

        return Response(await call.service.in_thread(drawn), media_type=MEDIA["png"])


async def picture(call: Call) -> Response:
    """POST /v1/picture: a picture as it is read: upright, in sRGB, opaque."""
    with call.service.pixels.reserved(await call.service.picture_pixels(call.body)):

        def written() -> tuple[bytes, tuple[str, ...]]:
            loaded = _read(call)
            pixels = to_8_bit(loaded.pixels) if call.query["bits"] == "8" else loaded.pixels
            return picture_bytes(pixels, ".png"), loaded.notices

        content, notices = await call.service.in_thread(written)
        return Response(content, 200, _noted(notices), MEDIA["png"])


async def round_trip(call: Call) -> Response:
    """POST /v1/roundtrip: `auravae roundtrip`, its numbers or one of its pictures."""
    pixels = await call.service.picture_pixels(call.body, _preparation(call))
    with call.service.pixels.reserved(pixels):
        loaded = await call.service.in_thread(_read, call)
        trip = await call.service.turn(_trips, None, (call, loaded), pixels)
        return await call.service.in_thread(_told, call, trip)


def _trips(codec: Codec, items: list[tuple[Call, LoadedImage]]) -> list[RoundTrip]:
    """Run round trips, in the thread of a lane."""
    trips = []
    for call, loaded in items:
        preparation = _preparation(call)
        dtype = STORED_DTYPES[call.query["latent_dtype"]]
        encoding = EncodeOptions(preparation, dtype, call.service.limits.pixels, False)
        decoding = DecodeOptions(noise=call.query["noise"], seed=call.query["seed"])
        elements = elements_of(call.query["flip"])
        trips.append(roundtrip(loaded.pixels, codec, encoding, decoding, elements))
    return trips


def elements_of(name: str | None) -> tuple[GroupElement, ...]:
    """Return the flips of a round trip by name; ``all`` is all three."""
    if name is None:
        return ()
    return GROUP[1:] if name == "all" else (GroupElement.parse(name),)


def _told(call: Call, trip: RoundTrip) -> Response:
    if call.query["give"] == "numbers":
        return JSONResponse(trip.details)
    note = {"command": "roundtrip", "model": call.service.space.model}
    pixels = contact_sheet(cells(trip)) if call.query["give"] == "sheet" else trip.reconstruction
    return Response(picture_bytes(pixels, ".png", provenance=note), media_type=MEDIA["png"])


def single(call: Call) -> LatentFile:
    """Return the latent in the body. Raises LatentFileError."""
    latent = parse_latents(call.body)
    if latent.is_shard:
        raise LatentFileError("a shard of latents: expected a single one")
    return latent


def _decoded_pixels(call: Call, latent: LatentFile) -> int:
    height, width = latent.values.shape[-2:]
    return call.service.check_pixels(height * width * latent.space.downsampling_factor**2)


def _read(call: Call) -> LoadedImage:
    background = call.query["background"]
    return read_image(call.body, background=background, max_pixels=call.service.limits.pixels)


def _preparation(call: Call) -> Preparation:
    query = call.query
    return Preparation(resize=query["resize"], pad=query["pad"], background=query["background"])


def _prepared(call: Call) -> PreparedImage:
    return _preparation(call).apply(_read(call), call.service.space.downsampling_factor)


def _noted(notices: tuple[str, ...]) -> dict[str, str]:
    """Return the header with the notices, as JSON."""
    return {"notices": write_json([notice[:500] for notice in notices[:8]])} if notices else {}
