"""Known models are found by their names, and those of latents by their weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from auravae_cli.model.spec import registry

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("model", "weights", "found"),
    [
        ("small", NEW, "small"),
        ("small", OLD, "older"),  # the name has gone on to newer weights
        ("small", OTHER, "small"),  # refused later, by their sha256
        ("mine", OLD, "older"),  # a checkpoint by path that is one of the known
        ("mine", OTHER, "mine"),
        ("linear", OTHER, "linear"),  # any weights of this name are accepted
    ],
)
def test_the_model_of_a_latent_is_that_of_its_weights(monkeypatch, model, weights, found):
    small, linear = registry.find_model("small"), registry.find_model("linear")
    known = {
        "linear": replace(linear, sha256=()),
        "older": replace(small, name="older", sha256=(OLD,)),
        "small": replace(small, sha256=(NEW,)),
    }
    monkeypatch.setattr(registry, "known_models", lambda: known)
    monkeypatch.setattr(registry, "find_model", known.get)
    assert registry.name_of(model, weights) == found
