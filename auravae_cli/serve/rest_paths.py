"""The paths of the REST interface, with their parameters."""

from __future__ import annotations

from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.serve import rest
from auravae_cli.serve.endpoint import Endpoint
from auravae_cli.serve.parameters import boolean, choice, colour, integer, number

PICTURE = ("application/octet-stream", "image/*")
BACKGROUND = colour("background", "Colour behind transparent pixels: a name or #rrggbb.", "white")
PREPARATION = (
    choice("latent_dtype", "Storage format of the latent.", tuple(STORED_DTYPES), "float16"),
    integer("resize", "Resize the short side to this many pixels first.", 1, 65_536),
    choice("pad", "Padding of the sides to multiples of 8.", ("edge", "reflect"), "edge"),
    BACKGROUND,
)
NOISE = (
    number("noise", "Multiply each latent value by 1 + noise * randn first.", 0, 100, 0.0),
    integer("seed", "Seed of the noise.", 0, 2**63 - 1, 0),
)

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/encode",
        "Encode a picture to a latent file, as auravae encode does.",
        rest.encode,
        PREPARATION,
        PICTURE,
        (rest.LATENT,),
    ),
    Endpoint(
        "POST",
        "/v1/decode",
        "Decode a latent file to a picture of its exact size, as auravae decode does.",
        rest.decode,
        (
            choice("format", "Format of the picture.", tuple(rest.MEDIA), "png"),
            choice("bits", "Bits per channel; 16 for PNG only.", ("8", "16"), "8"),
            integer("quality", "Quality of JPEG and WebP.", 1, 100, 95),
            *NOISE,
        ),
        (rest.LATENT,),
        tuple(rest.MEDIA.values()),
    ),
    Endpoint(
        "POST",
        "/v1/flip",
        "Flip a latent file or a shard, without the model, as auravae flip does.",
        rest.flip,
        (choice("by", "Left-right, top-bottom, or both.", ("h", "v", "hv"), "h"),),
        (rest.LATENT,),
        (rest.LATENT,),
    ),
    Endpoint(
        "POST",
        "/v1/info",
        "Describe a latent file, as auravae info --json does.",
        rest.info,
        (),
        (rest.LATENT,),
    ),
    Endpoint(
        "POST",
        "/v1/preview",
        "Draw a latent, without the model, as auravae show -o does.",
        rest.preview,
        (boolean("channels", "Draw a map of each channel, with its parity."),),
        (rest.LATENT,),
        (rest.MEDIA["png"],),
    ),
    Endpoint(
        "POST",
        "/v1/picture",
        "Return a picture as it is read: upright, in sRGB, opaque, as PNG.",
        rest.picture,
        (
            choice("bits", "Bits per channel; 16 if the file has them.", ("8", "16"), "8"),
            BACKGROUND,
        ),
        PICTURE,
        (rest.MEDIA["png"],),
    ),
    Endpoint(
        "POST",
        "/v1/roundtrip",
        "Encode and decode a picture, and measure the error, as auravae roundtrip --json does.",
        rest.round_trip,
        (
            choice("flip", "Also decode the latent with these flips.", ("h", "v", "hv", "all")),
            choice(
                "give",
                "Return the numbers, the reconstruction, or the contact sheet.",
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
