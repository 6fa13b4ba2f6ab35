"""The linear model commutes with the group, bit for bit, and is good enough to be a floor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from auravae_cli.images.metrics import psnr
from auravae_cli.images.read import read_image, to_unit
from auravae_cli.model.codec import Codec, load_codec
from auravae_cli.model.linear import LinearAutoencoder, fold, unfold
from auravae_cli.symmetry.action import act, act_on_base
from auravae_cli.symmetry.group import GROUP, PARITIES, GroupElement, character

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("linear")


@pytest.fixture(scope="module")
def model(codec: Codec) -> LinearAutoencoder:
    assert isinstance(codec.autoencoder, LinearAutoencoder)
    return codec.autoencoder


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 24, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return read_image((SAMPLES / "astronaut.jpg").read_bytes()).pixels


@pytest.mark.parametrize("g", GROUP)
def test_encoding_commutes_with_the_group(
    codec: Codec, g: GroupElement, images: np.ndarray
) -> None:
    flipped = codec.encode(act_on_base(g, images))
    expected = act(g, codec.encode(images), codec.space.irreps)
    assert flipped.dtype == np.float32
    assert flipped.tobytes() == expected.tobytes()


@pytest.mark.parametrize("g", GROUP)
def test_decoding_commutes_with_the_group(codec: Codec, g: GroupElement) -> None:
    z = np.random.default_rng(1).standard_normal((2, 16, 3, 2)).astype(np.float32)
    z[0, :, 0, 0] = 0
    flipped = codec.decode(act(g, z, codec.space.irreps))
    assert flipped.shape == (2, 3, 24, 16)
    assert flipped.tobytes() == np.ascontiguousarray(act_on_base(g, codec.decode(z))).tobytes()


@pytest.mark.parametrize("g", GROUP)
def test_a_photo_commutes_as_numbers(codec: Codec, g: GroupElement, photo: np.ndarray) -> None:
    """A zero of an odd channel may differ in its sign: a flat block is its own mirror image."""
    photo = np.concatenate([photo, np.full((16, 384, 3), 255, np.uint8)])
    x = to_unit(photo)[None]
    expected = act(g, codec.encode(x), codec.space.irreps)
    np.testing.assert_array_equal(codec.encode(act_on_base(g, x)), expected)


def test_folding_and_unfolding_is_four_times_the_identity(images: np.ndarray) -> None:
    np.testing.assert_allclose(unfold(fold(images)), 4 * images, atol=1e-5)


def test_parts_have_the_parity_of_their_name(images: np.ndarray) -> None:
    parts = fold(images)
    assert set(parts) == set(PARITIES)
    for g in GROUP:
        for parity, part in fold(act_on_base(g, images)).items():
            expected = character(parity, g) * act_on_base(g, parts[parity])
            np.testing.assert_array_equal(part, expected)


def components(model: LinearAutoencoder) -> np.ndarray:
    """Every component as a whole block [C, 3 * 8 * 8]."""
    blocks = []
    for quarter, parity in zip(model.basis, model.irreps.parities, strict=True):
        parts = {p: np.zeros((1, 3, 4, 4, 1, 1), np.float32) for p in PARITIES}
        parts[parity] = quarter[None, ..., None, None]
        blocks.append(unfold(parts).ravel())
    return np.array(blocks, np.float64)


def test_components_are_orthonormal(model: LinearAutoencoder) -> None:
    whole = components(model)
    np.testing.assert_allclose(whole @ whole.T, np.eye(16), atol=1e-5)


def test_encoding_is_the_projection_on_the_components(
    model: LinearAutoencoder, images: np.ndarray
) -> None:
    parts = {p: np.zeros((1, 3, 4, 4, 1, 1), np.float32) for p in PARITIES}
    mean = unfold(parts | {"ee": model.mean[None, ..., None, None]}).ravel()
    block = images[0, :, 8:16, 8:16].ravel()
    expected = components(model) @ (block - mean) * model.scale
    np.testing.assert_allclose(model.encode(images)[0, :, 1, 1], expected, atol=1e-4)


def test_a_latent_survives_decoding_and_encoding(model: LinearAutoencoder) -> None:
    z = np.random.default_rng(2).standard_normal((1, 16, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(model.encode(model.decode(z)), z, atol=1e-4)


def test_a_photo_comes_back_recognisably(codec: Codec, photo: np.ndarray) -> None:
    decoded = codec.decode_latent(codec.encode_image(photo))
    assert decoded.shape == photo.shape
    assert psnr(decoded, photo) > 25


def test_other_shapes_are_refused(codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 3, H, W\] in multiples of 8"):
        codec.encode(np.zeros((1, 3, 8, 9), np.float32))
    with pytest.raises(ValueError, match=r"expected \[B, 16, h, w\]"):
        codec.decode(np.zeros((1, 15, 2, 2), np.float32))
