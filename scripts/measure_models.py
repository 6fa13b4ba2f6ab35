"""Measure models on photographs, as in docs/models.md: quality, equivariance, noise.

    python scripts/measure_models.py PHOTOS --models linear small [--lpips WEIGHTS] [--json FILE]

PHOTOS is a folder or a tar of pictures that no model was trained on. Whole pictures, padded to
multiples of 8 where they have to be; latents stored as float16, except where equivariance is
measured, which is in float32. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from auravae_cli.action import act, act_on_base, act_on_pixels
from auravae_cli.codec import Codec, load_codec
from auravae_cli.group import HV, H, V
from auravae_cli.imagefile import Pixels, to_unit
from auravae_cli.metrics import psnr, ssim
from auravae_cli.model.lpips import Lpips, load_lpips
from auravae_cli.train.data import read_pictures
from auravae_cli.train.recipe import Data

NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
ELEMENTS = (H, V, HV)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos")
    parser.add_argument("--models", nargs="+", default=["linear", "small"])
    parser.add_argument("--lpips", help="weights of LPIPS")
    parser.add_argument("--json", type=Path, help="also write every picture's numbers")
    options = parser.parse_args()
    data = Data(sources=(options.photos,), num_validation=1, max_side=1 << 16)
    pictures = read_pictures(data)
    photos = [*pictures.validation, *pictures.training]
    lpips = load_lpips(options.lpips) if options.lpips else None
    codecs = {model: load_codec(model) for model in options.models}
    rows = {
        model: [measure(codec, photo, lpips) for photo in photos] for model, codec in codecs.items()
    }
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for title, keys in TABLES.items():
        print(f"\n| model | {' | '.join(keys)} |\n|---|{'---|' * len(keys)}   <!-- {title} -->")
        for model, numbers in rows.items():
            print(f"| `{model}` | {' | '.join(KEYS[key](numbers) for key in keys)} |")


def measure(codec: Codec, photo: Pixels, lpips: Lpips | None) -> dict[str, Any]:
    """All numbers of one picture."""
    latent = codec.encode_image(photo)
    plain = codec.decode_latent(latent)
    numbers: dict[str, Any] = {"psnr": psnr(plain, photo), "ssim": ssim(plain, photo)}
    if lpips:
        tensors = (torch.from_numpy(to_unit(p)[None]) for p in (plain, photo))
        with torch.inference_mode():
            numbers["lpips"] = float(lpips(*tensors))
    for level in NOISE:
        numbers[f"noise {level:g}"] = psnr(codec.decode_latent(latent, noise=level), photo)
    for g in ELEMENTS:
        flipped = codec.decode_latent(latent.act(g))
        numbers[f"gap {g}"] = numbers["psnr"] - psnr(flipped, act_on_pixels(g, photo))
    height, width = (side // 8 * 8 for side in photo.shape[:2])
    image = to_unit(photo[:height, :width])[None]
    return numbers | equivariance_errors(codec, image)


def equivariance_errors(codec: Codec, image: Any) -> dict[str, float]:
    """|E(gx) - gE(x)| / |E(x)| and |D(gz) - gD(z)| / |D(z)| in float32, for every g."""
    latent = codec.encode(image)
    decoded = codec.decode(latent)
    errors = {}
    for g in ELEMENTS:
        acted = act(g, latent, codec.space.irreps)
        encoder = codec.encode(np.ascontiguousarray(act_on_base(g, image))) - acted
        decoder = codec.decode(acted) - act_on_base(g, decoded)
        errors[f"encoder {g}"] = float(np.linalg.norm(encoder) / np.linalg.norm(latent))
        errors[f"decoder {g}"] = float(np.linalg.norm(decoder) / np.linalg.norm(decoded))
    return errors


def _mean(key: str, form: str) -> Any:
    return lambda rows: form % mean(row[key] for row in rows) if key in rows[0] else "-"


def _largest(prefix: str, form: str) -> Any:
    return lambda rows: form % max(abs(row[f"{prefix} {g}"]) for row in rows for g in ELEMENTS)


KEYS = {
    "PSNR dB": _mean("psnr", "%.2f"),
    "worst": lambda rows: f"{min(row['psnr'] for row in rows):.2f}",
    "SSIM": _mean("ssim", "%.3f"),
    "worst SSIM": lambda rows: f"{min(row['ssim'] for row in rows):.3f}",
    "LPIPS": _mean("lpips", "%.3f"),
    "worst LPIPS": lambda rows: f"{max(row.get('lpips', math.nan) for row in rows):.3f}",
    **{f"noise {level:g}": _mean(f"noise {level:g}", "%.2f") for level in NOISE},
    "flip gap dB": _largest("gap", "%.4f"),
    "encoder error": _largest("encoder", "%.1e"),
    "decoder error": _largest("decoder", "%.1e"),
}
TABLES = {
    "quality": ("PSNR dB", "worst", "SSIM", "worst SSIM", "LPIPS", "worst LPIPS"),
    "PSNR at latent noise": tuple(f"noise {level:g}" for level in NOISE),
    "flips, worst of all pictures": ("flip gap dB", "encoder error", "decoder error"),
}

if __name__ == "__main__":
    main()
