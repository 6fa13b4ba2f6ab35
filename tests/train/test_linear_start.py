"""A start in closed form: it encodes like the linear model, and passes brightness on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from auravae_cli.images.read import read_image
from auravae_cli.model.codec import load_codec
from auravae_cli.model.spec.config import Architecture
from auravae_cli.train.linear_start import warm_start
from auravae_cli.train.recipe import Recipe, Stage
from auravae_cli.train.trainable import build
from tests.train.conftest import SAMPLES

WIDTHS = [(3, 1, 1, 4), (3, 3, 4, 4)]  # with and without shortcuts before the last norms


def psnr(found, expected):
    return float(10 * torch.log10(4 / (found - expected).square().mean()))


@pytest.fixture(scope="module")
def images():
    """Three crops of 48 pixels, at half the size of the photographs."""
    crops = []
    for name in ("astronaut.jpg", "coffee.jpg", "rocket.webp"):
        pixels = read_image((SAMPLES / name).read_bytes()).pixels[::2, ::2]
        middle = pixels.shape[1] // 2
        crops += [pixels[40:88, middle : middle + 48]]
    return torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@torch.no_grad()
def test_a_start(widths, images):
    """One test for all that a start gives, since it takes some seconds."""
    recipe = Recipe(
        name="warm",
        architecture=Architecture(32, widths, 1, 16),
        stages=(Stage(1, 16, 1),),
        start="linear",
    )
    assert recipe.faults == []
    network, random = (build(recipe) for _ in range(2))
    warm_start(network, images)
    check_latents(network, images)
    check_reconstructions(network, random, images)
    check_brightness(network)
    check_equivariance(network, images)


def check_latents(network, images):
    """They are those of the linear model up to scale."""
    linear = load_codec("linear").encode(images.numpy())
    found = network.encoder(images).numpy()
    for channel in range(16):
        correlation = np.corrcoef(found[:, channel].ravel(), linear[:, channel].ravel())[0, 1]
        assert correlation > 0.9, channel  # a width of 128 has 8 pairs for 12 even channels


def check_reconstructions(network, random, images):
    """Pictures come back, and not because any network would do."""
    assert psnr(network(images)[0], images) > 18
    assert psnr(network(images)[0], images) > psnr(random(images)[0], images) + 8


def check_brightness(network):
    """It passes the norms."""
    levels = torch.tensor([-0.8, 0.0, 0.8])
    flat = levels.view(3, 1, 1, 1).expand(3, 3, 64, 64)
    found = network(flat)[0][..., 16:48, 16:48].mean((1, 2, 3))
    assert found[0] + 0.4 < found[1] < found[2] - 0.4


def check_equivariance(network, images):
    """The network stays exactly equivariant."""
    whole = network(images[:1])[0]
    for axes in ((-1,), (-2,), (-2, -1)):
        flipped = network(images[:1].flip(axes))[0]
        assert (flipped - whole.flip(axes)).norm() < 1e-4 * whole.norm()
