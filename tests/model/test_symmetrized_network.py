"""A network that knows no flips, averaged over the group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from auravae_cli.symmetry.action import act, act_on_base, act_on_pixels
from auravae_cli.symmetry.group import HV, H, V

FLIPS = pytest.mark.parametrize("g", [H, V, HV], ids=str)


@pytest.fixture(scope="module")
def exact(codec):
    """The tiny checkpoint, whose weights are random, symmetrised."""
    return codec.symmetrized()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, 40, 56)).astype(np.float32)


@FLIPS
def test_flips_commute_with_it_to_the_bit(codec, exact, image, g):
    irreps = codec.space.irreps
    mirrored = np.ascontiguousarray(act_on_base(g, image))
    latent = exact.encode(image)
    assert np.array_equal(exact.encode(mirrored), act(g, latent, irreps))
    decoded = exact.decode(act(g, latent, irreps))
    assert np.array_equal(decoded, act_on_base(g, exact.decode(latent)))
    plain = codec.encode(mirrored) - act(g, codec.encode(image), irreps)
    assert np.abs(plain).max() > 0.1  # the weights alone are far from it


@FLIPS
@pytest.mark.parametrize("size", [(48, 56), (43, 61), (9, 30)])
def test_files_too_whatever_the_size(exact, size, g):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    latent = exact.encode_image(pixels)
    mirrored = exact.encode_image(np.ascontiguousarray(act_on_pixels(g, pixels)))
    assert np.array_equal(mirrored.values, latent.act(g).values)
    assert mirrored.records[0].padding == latent.act(g).records[0].padding
    decoded = exact.decode_latent(latent.act(g))
    assert np.array_equal(decoded, act_on_pixels(g, exact.decode_latent(latent)))


def test_tensors_stay_tensors(exact, image):
    found = exact.encode(torch.from_numpy(image))
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), exact.encode(image))
