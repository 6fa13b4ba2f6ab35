"""The statistics of latents: numpy's own on all values at once, whatever was added in which order."""

from __future__ import annotations

import json

import numpy as np

from auravae_cli.latents.sums import LatentSums

CLAMP = 2.0
RANDOM = np.random.default_rng(0)
LATENTS = [
    np.clip(RANDOM.normal((0, 0.5, -1), (0.1, 1, 2), (h, w, 3)), -CLAMP, CLAMP)
    .transpose(2, 0, 1)
    .astype(np.float32)
    for h, w in ((4, 6), (9, 2), (5, 5))
]


def total(latents):
    """Added up, each through its text."""
    first, *others = (LatentSums.from_text(LatentSums.of(z, CLAMP).to_text()) for z in latents)
    for other in others:
        first = first + other
    return first.statistics()


def test_they_are_numpys():
    values = np.concatenate([z.reshape(3, -1) for z in LATENTS], axis=1).astype(np.float64)
    found = total(LATENTS)
    centred = values - values.mean(1, keepdims=True)
    kurtosis = (centred**4).mean(1) / (centred**2).mean(1) ** 2
    assert found["values"] == values.shape[1]
    np.testing.assert_allclose(found["mean"], values.mean(1), atol=1e-6)
    np.testing.assert_allclose(found["deviation"], values.std(1), atol=1e-6)
    np.testing.assert_allclose(found["kurtosis"], kurtosis, atol=1e-5)
    np.testing.assert_allclose(found["correlation"], np.corrcoef(values), atol=1e-6)
    np.testing.assert_allclose(found["clamped_share"], (abs(values) >= CLAMP).mean(1), atol=1e-6)
    assert found["clamped_share"][2] > 0.1
    np.testing.assert_allclose(found["minimum"], values.min(1), atol=1e-6)
    np.testing.assert_allclose(found["maximum"], values.max(1), atol=1e-6)
    assert [sum(counts) for counts in found["histogram"]] == [values.shape[1]] * 3


def test_the_order_does_not_matter():
    assert total(LATENTS) == total(LATENTS[::-1])


def test_a_constant_channel_has_no_kurtosis_and_no_correlation():
    latent = LATENTS[0].copy()
    latent[1] = 0.25
    found = total([latent])
    assert found["kurtosis"][1] is None and found["kurtosis"][0] is not None
    assert found["correlation"][1] == [None] * 3 and found["correlation"][0][1] is None
    assert json.dumps(found, allow_nan=False)
