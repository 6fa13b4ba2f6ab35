"""The orbit mean: exact equivariance of anything, by the order of the sum."""

from __future__ import annotations

import numpy as np
import pytest

from auravae_cli.model.codec import load_codec
from auravae_cli.model.symmetrized import Symmetrized, orbit_mean
from auravae_cli.symmetry.action import act, act_on_base
from auravae_cli.symmetry.group import GROUP, HV, E, H, Irreps, V

IRREPS = Irreps.parse("2xee+1xoe+1xeo")


class Crooked:
    """A nonlinear function of each 2 x 2 block's corner that no flip commutes with."""

    def encode(self, images):
        corner = images[:, :, ::2, ::2]
        mixed = np.concatenate([corner, np.sin(37 * corner[:, :1])], axis=1)
        return (mixed * np.linspace(0.1, 2.3, mixed.shape[-1], dtype=np.float32)).astype(np.float32)

    def decode(self, latents):
        big = np.repeat(np.repeat(latents[:, :3], 2, 2), 2, 3)
        return (big * np.linspace(0.7, 1.9, big.shape[-2], dtype=np.float32)[:, None]) ** 3


PICTURE = np.random.default_rng(0).uniform(-1, 1, (2, 3, 10, 14)).astype(np.float32)
LATENT = np.random.default_rng(1).normal(size=(2, 4, 5, 7)).astype(np.float32)


@pytest.mark.parametrize("g", GROUP, ids=str)
def test_it_commutes_with_flips_to_the_bit(g):
    exact = Symmetrized(Crooked(), IRREPS)
    mirrored = np.ascontiguousarray(act_on_base(g, PICTURE))
    assert np.array_equal(exact.encode(mirrored), act(g, exact.encode(PICTURE), IRREPS))
    decoded = exact.decode(act(g, LATENT, IRREPS))
    assert np.array_equal(decoded, act_on_base(g, exact.decode(LATENT)))


def test_the_network_itself_does_not():
    crooked = Crooked()
    mirrored = np.ascontiguousarray(act_on_base(H, PICTURE))
    difference = crooked.encode(mirrored) - act(H, crooked.encode(PICTURE), IRREPS)
    assert np.abs(difference).max() > 0.1


def test_another_order_of_the_sum_would_not():
    """What the grouping into pairs is for: a plain sum depends on its order."""
    terms = {
        g: np.random.default_rng(i).normal(size=10_000).astype("f4") for i, g in enumerate(GROUP)
    }
    plain = ((terms[E] + terms[H]) + terms[V]) + terms[HV]
    moved = ((terms[H] + terms[E]) + terms[HV]) + terms[V]
    assert not np.array_equal(plain, moved)
    for shift in GROUP:
        shifted = orbit_mean(lambda g, shift=shift: terms[g @ shift])
        assert np.array_equal(shifted, orbit_mean(terms.__getitem__))


def test_it_is_the_mean_over_the_group():
    crooked, exact = Crooked(), Symmetrized(Crooked(), IRREPS)
    terms = [
        act(g, crooked.encode(np.ascontiguousarray(act_on_base(g, PICTURE))), IRREPS) for g in GROUP
    ]
    np.testing.assert_allclose(exact.encode(PICTURE), np.mean(terms, axis=0), atol=1e-6)
    terms = [act_on_base(g, crooked.decode(act(g, LATENT, IRREPS))) for g in GROUP]
    np.testing.assert_allclose(exact.decode(LATENT), np.mean(terms, axis=0), rtol=1e-5, atol=1e-6)


def test_a_model_that_is_equivariant_stays_as_it_is():
    plain = load_codec("linear")
    exact = load_codec("linear", symmetrize=True)
    assert exact.space.is_symmetrized and not plain.space.is_symmetrized
    assert exact.symmetrized() is exact
    images = np.random.default_rng(2).uniform(-1, 1, (1, 3, 16, 24)).astype(np.float32)
    assert np.array_equal(exact.encode(images), plain.encode(images))
