"""The golden round trip: the result of each embedded model for a small picture, to compare with.

``weights/golden.safetensors`` holds ``picture`` (uint8 [H, W, 3], a part of a sample) and, for each
model, ``NAME.latent`` (float32 [C, h, w], after the clamp) and ``NAME.decoded`` (uint8 [H', W', 3],
the decode of that latent). Its metadata has the sha256 of each model's weights.
``scripts/make_golden.py`` wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from auravae_cli.errors import WeightsError
from auravae_cli.files.canonical_json import read_json
from auravae_cli.images.read import Pixels
from auravae_cli.model.spec.registry import WEIGHTS_PATH

GOLDEN_PATH = WEIGHTS_PATH / "golden.safetensors"
KEY = "auravae"

# The largest relative rms error of a latent, and the smallest PSNR to the golden decode in dB, by
# the network's number format. Another processor's float32 gives 1e-5 and 60 dB.
TOLERANCES = {"float32": (1e-3, 50.0), "float16": (0.02, 35.0), "bfloat16": (0.1, 25.0)}


@dataclass(frozen=True)
class Golden:
    """The result of one model. ``picture`` has sides that are multiples of 8, so it needs no padding."""

    picture: Pixels
    weights_sha256: str | None
    latent: NDArray[np.float32] | None
    decoded: Pixels | None


def read_golden(model: str, path: Path = GOLDEN_PATH) -> Golden:
    """Return the picture, and a model's numbers if the file has them. Raises WeightsError."""
    try:
        with safe_open(path, framework="np") as file:
            digests = read_json((file.metadata() or {})[KEY])
            picture = file.get_tensor("picture")
            if model not in digests:
                return Golden(picture, None, None, None)
            latent, decoded = (file.get_tensor(f"{model}.{kind}") for kind in ("latent", "decoded"))
            return Golden(picture, digests[model], latent, decoded)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: damaged ({error}): install auravae again") from error
