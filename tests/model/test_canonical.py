"""Flips are exact by way of the first mirror image: for anything, at any precision, at no cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from auravae_cli.model.canonical import first_image, run_canonically
from auravae_cli.model.codec import load_codec
from auravae_cli.model.symmetrized import mirrored
from auravae_cli.symmetry.action import act, act_on_base, act_on_pixels
from auravae_cli.symmetry.group import GROUP, HV, H, Irreps, V
from tests.model.test_symmetrized import Crooked

pytestmark = pytest.mark.xdist_group("canonical")

IRREPS = Irreps.parse("2xee+1xoe+1xeo")
FLIPS = pytest.mark.parametrize("g", [H, V, HV], ids=str)


def act_on_latents(g, latents):
    return act(g, latents, IRREPS)


def encode(images):
    return run_canonically(Crooked().encode, images, mirrored, act_on_latents)


def decode(latents):
    return run_canonically(Crooked().decode, latents, act_on_latents, mirrored)


# Few numbers, so that mirror images are often equal, as a whole or for a long way; zeros of both signs.
values = st.sampled_from([-1.5, -1.0, -0.0, 0.0, 1.0])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.data())
def test_flips_of_any_latents_commute_with_decoding(batch, height, width, data):
    shape = (batch, 4, height, width)
    numbers = data.draw(st.lists(values, min_size=1, max_size=6))
    latents = np.resize(np.array(numbers, np.float32), shape)
    for kind in data.draw(st.sets(st.sampled_from([H, V, HV]))):  # often its own mirror image
        latents = latents + act(kind, latents, IRREPS)
    for g in GROUP:
        assert np.array_equal(decode(act(g, latents, IRREPS)), act_on_base(g, decode(latents)))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_flips_of_any_pictures_commute_with_encoding(batch, height, width, data):
    numbers = data.draw(st.lists(values, min_size=1, max_size=6))
    images = np.resize(np.array(numbers, np.float32), (batch, 3, 2 * height, 2 * width))
    for kind in data.draw(st.sets(st.sampled_from([H, V, HV]))):
        images = images + act_on_base(kind, images)
    for g in GROUP:
        assert np.array_equal(encode(mirrored(g, images)), act(g, encode(images), IRREPS))


def test_items_of_a_batch_are_each_turned_for_themselves():
    latents = np.random.default_rng(0).normal(size=(4, 4, 5, 7)).astype(np.float32)
    mixed = np.stack([act(g, z, IRREPS) for g, z in zip(GROUP, latents, strict=True)])
    expected = [act_on_base(g, x) for g, x in zip(GROUP, decode(latents), strict=True)]
    assert np.array_equal(decode(mixed), np.stack(expected))


def test_the_function_runs_once_on_one_of_the_mirror_images():
    seen = []

    def watched(batch):
        seen.append(batch)
        return Crooked().decode(batch)

    latent = np.random.default_rng(0).normal(size=(1, 4, 3, 3)).astype(np.float32)
    run_canonically(watched, latent, act_on_latents, mirrored)
    (ran,) = seen
    assert any(np.array_equal(ran, act(g, latent, IRREPS)) for g in GROUP)


def test_flips_that_change_nothing_are_found():
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert first_image(images, mirrored)[1] == [GROUP[0]]
    assert first_image(images + act_on_base(V, images), mirrored)[1] == [GROUP[0], V]
    assert first_image(np.ones((3, 4, 4), np.float32), mirrored)[1] == list(GROUP)


def test_no_number_is_no_reason_to_fail():
    latents = np.full((1, 4, 2, 2), np.nan, np.float32)
    assert np.isnan(decode(latents)).all()


def test_empty_batches_stay_empty():
    assert decode(np.empty((0, 4, 2, 2), np.float32)).shape == (0, 3, 4, 4)


# Networks


@pytest.fixture(scope="module")
def free(tiny_path):
    """Random weights that know no flips."""
    return load_codec(str(tiny_path), device="cpu", symmetrize="canonical")


@pytest.fixture(scope="module", params=["free", "free bfloat16", "tied", "tied bfloat16"])
def exact(request, tiny_path):
    kind, _, dtype = request.param.partition(" ")
    model = "small" if kind == "tied" else str(tiny_path)
    return load_codec(model, device="cpu", dtype=dtype or "float32", symmetrize="canonical")


@FLIPS
def test_flips_commute_with_networks_to_the_bit(exact, g):
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 40, 24)).astype(np.float32)
    irreps, latents = exact.space.irreps, exact.encode(images)
    assert np.array_equal(exact.encode(mirrored(g, images)), act(g, latents, irreps))
    assert np.array_equal(exact.decode(act(g, latents, irreps)), mirrored(g, exact.decode(latents)))


@FLIPS
@pytest.mark.parametrize("size", [(16, 24), (19, 29)])
def test_files_too_whatever_the_size(free, size, g):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    latent = free.encode_image(pixels)
    turned = free.encode_image(np.ascontiguousarray(act_on_pixels(g, pixels)))
    assert np.array_equal(turned.values, latent.act(g).values)
    decoded = free.decode_latent(latent.act(g))
    assert np.array_equal(decoded, act_on_pixels(g, free.decode_latent(latent)))


def test_strips_too(tiny_path):
    least = load_codec(str(tiny_path), device="cpu").autoencoder.least_memory(64, 48)
    tight = load_codec(str(tiny_path), device="cpu", memory=least, symmetrize="canonical")
    images = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 48)).astype(np.float32)
    latents = tight.encode(images)
    assert np.array_equal(tight.encode(mirrored(H, images)), act(H, latents, tight.space.irreps))


def test_tensors_stay_tensors(free):
    images = 2 * torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) - 1
    found = free.encode(images)
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), free.encode(images.numpy()))
    symmetric = (images + images.flip(-1)) / 2
    assert torch.equal(free.encode(symmetric), act(H, free.encode(symmetric), free.space.irreps))


def test_it_is_the_default_of_tied_weights_alone(tiny_path):
    found = {
        how: load_codec("small", parts=("decoder",), device="cpu", symmetrize=how).symmetry
        for how in ("auto", "none", "mean", "canonical", True, False)
    }
    assert found == {
        "auto": "canonical", "none": "none", "mean": "mean", "canonical": "canonical",
        True: "mean", False: "none",
    }  # fmt: skip
    assert load_codec(str(tiny_path), device="cpu").symmetry == "none"
    assert load_codec("linear").symmetry == "none"
    with pytest.raises(ValueError, match="symmetrize 'often': expected auto or one of none, mean"):
        load_codec("linear", symmetrize="often")


def test_for_tied_weights_it_changes_last_bits_alone():
    images = np.random.default_rng(0).uniform(-1, 1, (1, 3, 40, 24)).astype(np.float32)
    plain, exact = (
        load_codec("small", device="cpu", dtype="float32", symmetrize=how)
        for how in ("none", "canonical")
    )
    assert np.abs(plain.encode(images) - exact.encode(images)).max() < 1e-4
