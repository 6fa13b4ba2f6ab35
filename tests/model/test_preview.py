"""Latents as pictures: they commute with the group exactly, and previews are those of the weights."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from auravae_cli.images.metrics import psnr
from auravae_cli.images.read import read_image
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.model.codec import load_codec
from auravae_cli.model.preview import (
    NEGATIVE,
    POSITIVE,
    ZERO,
    channel_map,
    component_colours,
    enlarged,
    find_preview,
    latent_colours,
    map_range,
    preview_colours,
)
from auravae_cli.model.spec.registry import WEIGHTS_PATH, known_models
from auravae_cli.symmetry.action import act, act_on_pixels
from auravae_cli.symmetry.group import GROUP, HV, H, Irreps, V

SAMPLES = Path(__file__).parents[2] / "samples"
IRREPS = Irreps.parse("12xee+2xoe+2xeo")
EMBEDDED = [config for config in known_models().values() if config.weights]


@pytest.fixture
def latent():
    return np.random.default_rng(0).normal(size=(16, 37, 51)).astype(np.float32)


@pytest.mark.parametrize("config", EMBEDDED, ids=lambda config: config.name)
def test_every_embedded_model_has_a_preview_of_its_weights(config):
    content = (WEIGHTS_PATH / config.weights).read_bytes()
    assert config.preview, "run scripts/fit_preview.py"
    assert config.preview.weights_sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("g", GROUP, ids=str)
@pytest.mark.parametrize("config", EMBEDDED, ids=lambda config: config.name)
def test_previews_commute_with_flips_exactly(latent, config, g):
    plain = preview_colours(latent, IRREPS, config.preview)
    flipped = preview_colours(act(g, latent, IRREPS), IRREPS, config.preview)
    assert np.array_equal(flipped, act_on_pixels(g, plain))
    assert plain.std() > 10


@pytest.mark.parametrize("g", GROUP, ids=str)
def test_principal_components_commute_with_flips_exactly(latent, g):
    plain = component_colours(latent, IRREPS)
    flipped = component_colours(act(g, latent, IRREPS), IRREPS)
    assert np.array_equal(flipped, act_on_pixels(g, plain))
    assert plain.std() > 10


@pytest.mark.parametrize("seed", range(5))
def test_components_that_rounding_decides(seed):
    """A circulant covariance has equal eigenvalues: which components come out hangs on the last bits."""
    values = np.random.default_rng(seed).normal(size=48).astype(np.float32)
    latent = np.stack([np.roll(values, 4 * k) for k in range(12)]).reshape(12, 6, 8)
    even = Irreps.parse("12xee")
    plain = component_colours(latent, even)
    for g in GROUP:
        flipped = component_colours(act(g, latent, even), even)
        assert np.array_equal(flipped, act_on_pixels(g, plain))


def test_principal_components_of_little():
    for shape in ((1, 1), (1, 2), (4, 4)):
        flat = np.ones((16, *shape), np.float32)
        assert np.array_equal(component_colours(flat, IRREPS), np.full((*shape, 3), 128))
    few = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    assert component_colours(few, Irreps.parse("2xee+1xoe")).shape == (4, 5, 3)


def test_a_preview_looks_like_the_picture():
    codec = load_codec("linear")
    image = read_image((SAMPLES / "coffee.jpg").read_bytes())
    latent = codec.encode_image(image)
    colours, are_true = latent_colours(latent.to_float32(), latent.space)
    assert are_true
    pixels = enlarged(colours, latent)
    assert pixels.shape == image.pixels.shape
    cells = image.pixels[8 - latent.records[0].padding.top :, 8 - latent.records[0].padding.left :]
    rows, columns = (side // 8 for side in cells.shape[:2])
    means = cells[: 8 * rows, : 8 * columns].reshape(rows, 8, columns, 8, 3).mean((1, 3))
    found = colours[1 : 1 + rows, 1 : 1 + columns]
    assert psnr(found, np.rint(means).astype(np.uint8)) > 45


def test_other_weights_have_no_preview(latent):
    space = LatentSpace("small", "0" * 64, 8, IRREPS, 8.0)
    assert find_preview(space) is None
    colours, are_true = latent_colours(latent, space)
    assert not are_true
    assert np.array_equal(colours, component_colours(latent, IRREPS))
    known = replace(space, weights_sha256=EMBEDDED[0].preview.weights_sha256)
    assert find_preview(known) == EMBEDDED[0].preview


def test_enlarged_pictures_commute_with_flips():
    latent = load_codec("linear").encode_image(SAMPLES / "coffee.jpg")

    def picture(z):
        return enlarged(latent_colours(z.to_float32(), z.space)[0], z)

    assert any(latent.records[0].padding.as_tuple())
    for g in (H, V, HV):
        assert np.array_equal(picture(latent.act(g)), act_on_pixels(g, picture(latent)))


def test_channel_maps(latent):
    values = np.array([[-3, -1.5, 0, 1.5, 9]], np.float32)
    (row,) = channel_map(values, 3)
    assert [tuple(row[i]) for i in (0, 2, 4)] == [NEGATIVE, ZERO, POSITIVE]
    assert channel_map(values, 3, in_grey=True)[0, :, 0].tolist() == [0, 64, 128, 191, 255]
    top = map_range(latent)
    assert (np.abs(latent) <= top).mean() == pytest.approx(0.995, abs=1e-3)
    for g in GROUP:
        assert map_range(act(g, latent, IRREPS)) == top
        maps = channel_map(act(g, latent, IRREPS)[12], top)
        sign = IRREPS.signs(g)[12]
        assert np.array_equal(maps, act_on_pixels(g, channel_map(sign * latent[12], top)))
    assert map_range(np.zeros((4, 1, 1), np.float32)) == 1
