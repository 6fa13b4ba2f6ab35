"""The paths of the plain interface, with their parameters."""

from __future__ import annotations

from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.serve import rest
from auravae_cli.serve.endpoint import Endpoint
from auravae_cli.serve.parameters import boolean, choice, colour, integer, number

PICTURE = ("application/octet-stream", "image/*")
BACKGROUND = colour("background", "What alpha is composited on: a name or #rrggbb.", "white")
PREPARATION = (
    choice("latent_dtype", "How latents are stored.", tuple(STORED_DTYPES), "float16"),
    integer("resize", "Bring the short side to so many pixels first.", 1, 65_536),
    choice("pad", "What fills sides up to multiples of 8.", ("edge", "reflect"), "edge"),
    BACKGROUND,
)
NOISE = (
    number("noise", "Multiply each latent value by 1 + noise * randn first.", 0, 100, 0.0),
    integer("seed", "Of the noise.", 0, 2**63 - 1, 0),
)

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/encode",
        "A picture to a latent file: what `auravae encode` writes.",
        rest.encode,
        PREPARATION,
        PICTURE,
        (rest.LATENT,),
    ),
    Endpoint(
        "POST",
        "/v1/decode",
        "A latent file to a picture of its exact size: what `auravae decode` writes.",
        rest.decode,
        (
            choice("format", "Of the picture.", tuple(rest.MEDIA), "png"),
            choice("bits", "8, or 16 for PNG of 16 bits a channel.", ("8", "16"), "8"),
            integer("quality", "Of JPEG and WebP.", 1, 100, 95),
            *NOISE,
        ),
        (rest.LATENT,),
        tuple(rest.MEDIA.values()),
    ),
    Endpoint(
        "POST",
        "/v1/flip",
        "A latent file, or a shard, flipped without the model: what `auravae flip` writes.",
        rest.flip,
        (choice("by", "Left-right, top-bottom, or both.", ("h", "v", "hv"), "h"),),
        (rest.LATENT,),
        (rest.LATENT,),
    ),
    Endpoint(
        "POST",
        "/v1/info",
        "What a latent file holds: what `auravae info --json` prints.",
        rest.info,
        (),
        (rest.LATENT,),
    ),
    Endpoint(
        "POST",
        "/v1/preview",
        "A latent as a picture, without the model: what `auravae show -o` writes.",
        rest.preview,
        (boolean("channels", "A map of each channel, with its parity."),),
        (rest.LATENT,),
        (rest.MEDIA["png"],),
    ),
    Endpoint(
        "POST",
        "/v1/picture",
        "A picture as it is read: upright, in sRGB, opaque; PNG.",
        rest.picture,
        (choice("bits", "8, or 16 where the file has them.", ("8", "16"), "8"), BACKGROUND),
        PICTURE,
        (rest.MEDIA["png"],),
    ),
    Endpoint(
        "POST",
        "/v1/roundtrip",
        "A picture to a latent and back, with what that costs: as `auravae roundtrip --json` says.",
        rest.round_trip,
        (
            choice("flip", "Also decode the latent flipped by these.", ("h", "v", "hv", "all")),
            choice(
                "give",
                "The numbers, the reconstruction, or the contact sheet.",
                ("numbers", "picture", "sheet"),
                "numbers",
            ),
            *PREPARATION,
            *NOISE,
        ),
        PICTURE,
        ("application/json", rest.MEDIA["png"]),
    ),
)
