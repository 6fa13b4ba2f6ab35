"""Measure a model's speed on small pictures, if no earlier run has recorded it."""

from __future__ import annotations

import numpy as np

from auravae_cli.forecast.run_setting import RunSetting
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.write import picture_bytes
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.machine.meter import Meter
from auravae_cli.machine.speeds import Speeds, speed_key
from auravae_cli.model.codec import Codec, load_codec
from auravae_cli.operations.decode import DecodeOptions
from auravae_cli.operations.encode import EncodeOptions
from auravae_cli.operations.roundtrip import roundtrip
from auravae_cli.operations.timed_batches import Parts, operations_of, roundtrip_parts

SIDES = (64, 256, 512)
ENOUGH_SECONDS = 0.3  # a run this long is enough
REPEATS = 2  # after a warm-up; the fastest counts


def calibrate(
    command: str, parts: Parts, setting: RunSetting, model: str, memory: int | None, speeds: Speeds
) -> None:
    """Measure a command on larger and larger pictures until one takes long enough."""
    codec = load_codec(model, device=setting.where.device, dtype=setting.where.dtype, memory=memory)
    if command == "roundtrip":
        parts = roundtrip_parts(0)
    key = speed_key(command, setting.weights_sha256, setting.where.device, setting.where.dtype)
    for side in SIDES:
        seconds = min(_measure(command, codec, side) for _ in range(1 + REPEATS))
        plans = [setting.plan(part, 1, side, side) for part, _ in parts]
        speeds.record(key, operations_of(plans, parts, 1), seconds)
        if seconds >= ENOUGH_SECONDS:
            break
    speeds.save()


def _measure(command: str, codec: Codec, side: int) -> float:
    """Return the seconds of a command on a smooth picture with some noise, like a photograph."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)
    pixels = (ramp[:, None, None] / 2 + ramp[None, :, None] / 2).repeat(3, 2)
    picture = (pixels + random.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
    latent = codec.encode_image(picture) if command == "decode" else None
    with Meter(codec.device) as meter:
        if command == "encode":
            codec.encode_image(picture).to_bytes()
        elif latent is not None:
            picture_bytes(codec.decode_latent(latent), ".png", quality=95, provenance={})
        else:
            options = EncodeOptions(Preparation(), FLOAT16, side * side, False)
            roundtrip(picture, codec, options, DecodeOptions())
    return meter.seconds
