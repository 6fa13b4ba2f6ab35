"""The embedded network: it loads, it is exactly equivariant, and it beats the linear model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from auravae_cli.defaults import DEFAULT_MODEL
from auravae_cli.images.metrics import psnr, ssim
from auravae_cli.images.read import read_image
from auravae_cli.model.codec import load_codec
from auravae_cli.model.spec.card import read_card
from auravae_cli.model.spec.registry import WEIGHTS_PATH, known_models
from auravae_cli.symmetry.action import act, act_on_base
from auravae_cli.symmetry.group import HV, H, V

SAMPLES = Path(__file__).parents[2] / "samples"
PHOTOS = {
    name: read_image((SAMPLES / name).read_bytes()).pixels[:200, :264]
    for name in ("astronaut.jpg", "coffee.jpg", "chelsea_exif6.jpg")
}


@pytest.fixture(scope="module")
def small():
    return load_codec("small", device="cpu")


def test_it_is_the_default(small):
    assert DEFAULT_MODEL == "small"
    assert load_codec(device="cpu").space == small.space


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_half_of_it_loads_alone_and_computes_the_same(small, part):
    half = load_codec("small", parts=(part,), device="cpu")
    assert half.space == small.space
    shape = (1, 3, 16, 24) if part == "encoder" else (1, 16, 2, 3)
    batch = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    run = "encode" if part == "encoder" else "decode"
    np.testing.assert_array_equal(getattr(half, run)(batch), getattr(small, run)(batch))


def test_its_card_says_how_it_was_made():
    config = known_models()["small"]
    card = read_card(WEIGHTS_PATH / config.weights)
    assert card.is_tied
    assert card.irreps == config.space.irreps
    recipe = card.content["recipe"]
    assert recipe["equivariance"] == "exact"
    assert card.content["steps"] == sum(stage["steps"] for stage in recipe["stages"])
    assert recipe["architecture"] == {
        "ch": config.architecture.ch,
        "ch_mult": list(config.architecture.ch_mult),
        "num_res_blocks": list(config.architecture.blocks),
        "latent_channels": 16,
    }


def test_the_package_stays_small():
    assert sum(path.stat().st_size for path in WEIGHTS_PATH.iterdir()) < 20_000_000


@pytest.mark.parametrize("g", [H, V, HV], ids=str)
def test_encoder_and_decoder_are_equivariant(small, g):
    image = PHOTOS["coffee.jpg"].transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
    latent = small.encode(image)
    acted = act(g, latent, small.space.irreps)
    encoded = small.encode(np.ascontiguousarray(act_on_base(g, image)))
    assert np.linalg.norm(encoded - acted) <= 1e-5 * np.linalg.norm(latent)
    decoded = small.decode(latent)
    difference = small.decode(acted) - act_on_base(g, decoded)
    assert np.linalg.norm(difference) <= 1e-5 * np.linalg.norm(decoded)


@pytest.mark.parametrize("name", PHOTOS)
def test_it_beats_the_linear_model(small, name):
    linear, photo = load_codec("linear"), PHOTOS[name]
    by_small, by_linear = (c.decode_latent(c.encode_image(photo)) for c in (small, linear))
    assert psnr(by_small, photo) > psnr(by_linear, photo) + 1
    assert ssim(by_small, photo) > ssim(by_linear, photo)


def test_it_takes_noise(small):
    photo = PHOTOS["astronaut.jpg"]
    latent = small.encode_image(photo)
    plain, noisy = (psnr(small.decode_latent(latent, noise=n), photo) for n in (0, 0.1))
    assert plain - 1.5 < noisy < plain


@pytest.mark.parametrize("level", [0, 64, 128, 200, 255])
def test_flat_pictures_keep_their_brightness(small, level):
    photo = np.full((64, 64, 3), level, np.uint8)
    decoded = small.decode_latent(small.encode_image(photo)).astype(int)
    assert abs(decoded.mean() - level) < 8


def test_latents_are_of_unit_size(small):
    latents = [small.encode_image(photo).to_float32() for photo in PHOTOS.values()]
    deviation = np.concatenate([z.reshape(16, -1) for z in latents], axis=1).std(1)
    assert np.all((deviation > 0.3) & (deviation < 3))
