"""A network in both lanes at once: its results are those of the codec alone, bit for bit."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from auravae_cli import load_codec
from auravae_cli.images.read import read_image
from auravae_cli.latents.latent_file import parse_latents
from auravae_cli.serve.limits import Limits


@pytest.fixture(scope="module")
def small():
    """The default model, with so little memory that the larger pictures run in strips."""
    return load_codec("small", device="cpu", memory=60 << 20)


def test_small_and_large_pictures_together(start, small, coffee):
    photo = Image.open(io.BytesIO(coffee))
    sides = [(320, 200), (64, 48), (90, 31), (64, 48)]
    files = []
    for number, (width, height) in enumerate(sides):
        file = io.BytesIO()
        photo.crop((number, 0, number + width, height)).save(file, "PNG")
        files.append(file.getvalue())
    assert small.autoencoder.plan("decoder", 1, 200, 320).tiles > 1
    running = start(small, Limits(small=100 * 100))

    def there_and_back(data: bytes) -> tuple[bytes, bytes]:
        latent = running.post("/v1/encode", data).body
        return latent, running.post("/v1/decode", latent).body

    with ThreadPoolExecutor(len(files)) as pool:
        found = list(pool.map(there_and_back, files))
    for data, (content, picture) in zip(files, found, strict=True):
        latent = small.encode_image(read_image(data))
        assert parse_latents(content).to_bytes() == latent.to_bytes()
        pixels = np.asarray(Image.open(io.BytesIO(picture)))
        assert np.array_equal(pixels, small.decode_latent(latent))
