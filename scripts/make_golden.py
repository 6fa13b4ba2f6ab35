"""Write auravae_cli/weights/golden.safetensors: what `auravae doctor` compares with.

    python scripts/make_golden.py

A part of samples/astronaut.jpg through each embedded model, on the CPU in float32. Run it when a
model's weights change, and only then: it is the tests' word that nothing else changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from auravae_cli import load_codec
from auravae_cli.diagnostics.golden import GOLDEN_PATH, KEY
from auravae_cli.files.atomic import write_atomically
from auravae_cli.images.read import from_unit, read_image, to_unit
from auravae_cli.model.spec.registry import known_models

SAMPLE = Path(__file__).parents[1] / "samples" / "astronaut.jpg"
ROWS, COLUMNS = slice(40, 136), slice(140, 252)  # 96 x 112: a face, hair, cloth


def main() -> None:
    picture = np.ascontiguousarray(read_image(SAMPLE.read_bytes()).pixels[ROWS, COLUMNS])
    tensors, digests = {"picture": picture}, {}
    for config in known_models().values():
        if config.weights is None:
            continue
        codec = load_codec(config.name, device="cpu", dtype="float32")
        latent = codec.encode(to_unit(picture)[None])
        tensors[f"{config.name}.latent"] = latent[0]
        tensors[f"{config.name}.decoded"] = from_unit(codec.decode(latent)[0])
        digests[config.name] = codec.space.weights_sha256
    content = save(tensors, {KEY: json.dumps(digests, sort_keys=True)})
    write_atomically(GOLDEN_PATH, content)
    print(f"{GOLDEN_PATH}: {len(content)} bytes, {', '.join(digests)}")


if __name__ == "__main__":
    main()
