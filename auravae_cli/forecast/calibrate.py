"""Measure a model's speed on small pictures, if no earlier run has recorded it."""

from __future__ import annotations

import numpy as np

from auravae_cli.forecast.run_setting import RunSetting
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import Pixels
from auravae_cli.images.write import picture_bytes
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.machine.meter import Meter
from auravae_cli.machine.speeds import Speeds
from auravae_cli.model.codec import Codec, load_codec, load_image
from auravae_cli.operations.decode import DecodeOptions
from auravae_cli.operations.encode import EncodeOptions
from auravae_cli.operations.roundtrip import roundtrip
from auravae_cli.operations.timed_batches import Parts, operations_of, roundtrip_parts, speed_of

SIDES = (64, 256, 512)
ENOUGH_SECONDS = 0.3  # a run this long is enough
REPEATS = 2  # after a warm-up; the fastest counts


def calibrate(
    command: str, parts: Parts, setting: RunSetting, model: str, memory: int | None, speeds: Speeds
) -> None:
    """Measure a command with a model that is not loaded."""
    codec = load_codec(model, device=setting.where.device, dtype=setting.where.dtype, memory=memory)
    measure_speed(command, parts, codec, speeds)


def measure_speed(command: str, parts: Parts, codec: Codec, speeds: Speeds) -> None:
    """Measure a command on larger and larger pictures until one takes long enough."""
    if command == "roundtrip":
        parts = roundtrip_parts(0)
    key = speed_of(command, codec)
    for side in SIDES:
        seconds = min(_measure(command, codec, side) for _ in range(1 + REPEATS))
        plans = [codec.autoencoder.plan(part, 1, side, side) for part, _ in parts]
        speeds.record(key, operations_of(plans, parts, 1), seconds)
        if seconds >= ENOUGH_SECONDS:
            break
    speeds.save()


def _latent(codec: Codec, picture: Pixels) -> LatentFile:
    """Return a latent of a picture's size; noise, since a decoder alone cannot encode."""
    prepared = Preparation().apply(load_image(picture, "white"), codec.space.downsampling_factor)
    cells = [side // codec.space.downsampling_factor for side in prepared.padded.shape[1:]]
    values = np.random.default_rng(0).standard_normal((codec.space.irreps.dim, *cells), np.float32)
    return codec.store(values, prepared, FLOAT16, None)


def _measure(command: str, codec: Codec, side: int) -> float:
    """Return the seconds of a command on a smooth picture with some noise, like a photograph."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)
    pixels = (ramp[:, None, None] / 2 + ramp[None, :, None] / 2).repeat(3, 2)
    picture = (pixels + random.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
    latent = _latent(codec, picture) if command == "decode" else None
    with Meter(codec.device) as meter:
        if command == "encode":
            codec.encode_image(picture).to_bytes()
        elif latent is not None:
            picture_bytes(codec.decode_latent(latent), ".png", quality=95, provenance={})
        else:
            options = EncodeOptions(Preparation(), FLOAT16, side * side, False)
            roundtrip(picture, codec, options, DecodeOptions())
    return meter.seconds
