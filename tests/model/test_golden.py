"""Agreement with the reference implementation, evaluated in float64."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from auravae_cli.model.codec import load_codec
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.group import GroupElement

BOUND = 1e-5


def relative_error(found, expected):
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


@pytest.fixture(scope="module", params=["tiny", "mult1244"])
def pair(request, golden):
    """A codec in float32 and what the reference gives for the same weights."""
    name = request.param
    beside = Path(__file__).parents[3] / "shared" / "golden"
    folder = golden if name == "tiny" else Path(os.environ.get("AURAVAE_SHARED") or beside)
    weights = folder / f"{name}_weights_bf16.safetensors"
    if name != "tiny" and not weights.is_file():
        pytest.skip(f"{weights.name} is not committed, and neither AURAVAE_SHARED has it")
    codec = load_codec(str(weights), device="cpu", dtype="float32")
    return codec, load_file(folder / f"{name}_io.safetensors")


def test_the_encoder(pair):
    codec, expected = pair
    latent = codec.autoencoder.encode(expected["image"])
    assert relative_error(latent, expected["latent_raw"]) < BOUND


def test_the_clamped_latent(pair):
    codec, expected = pair
    latent = codec.encode(expected["image"])
    assert relative_error(latent, expected["latent"]) < BOUND
    assert np.abs(latent).max() <= 8


@pytest.mark.parametrize("g", ["e", "h", "v", "hv"])
def test_the_decoder_after_each_flip(pair, g):
    codec, expected = pair
    latent = act(GroupElement.parse(g), expected["latent"], codec.space.irreps)
    decoded = expected["decoded" if g == "e" else f"decoded_{g}"]
    assert relative_error(codec.decode(latent), decoded) < BOUND


def test_the_reference_has_values_to_clamp(pair):
    _, expected = pair
    assert np.abs(expected["latent_raw"]).max() > 8
    assert np.array_equal(expected["latent_raw"].clip(-8, 8), expected["latent"])


def test_the_flips_differ_so_that_a_wrong_one_would_show(pair):
    _, expected = pair
    pictures = [expected[name] for name in ("decoded", "decoded_h", "decoded_v", "decoded_hv")]
    for i, first in enumerate(pictures):
        for second in pictures[i + 1 :]:
            assert relative_error(first, second) > 100 * BOUND
