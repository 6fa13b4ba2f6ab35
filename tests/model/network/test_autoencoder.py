"""The names and shapes of the official model, and the sizes read off them."""

from __future__ import annotations

import json
import math

import pytest

from auravae_cli.model.spec.config import Architecture
from auravae_cli.model.spec.registry import known_models
from tests.model.expected_shapes import expected_shapes


@pytest.fixture(scope="module")
def aura_shapes(golden):
    """What the reference names its tensors, with their shapes."""
    table = json.loads((golden / "aura_state_dict_shapes.json").read_text())
    return {name: tuple(shape) for name, shape in table.items()}


@pytest.fixture(scope="module")
def aura():
    return known_models()["aura"].architecture


def test_the_official_model_has_the_references_names_and_shapes(aura, aura_shapes):
    assert expected_shapes(aura) == aura_shapes
    assert len(aura_shapes) == 232
    assert sum(map(math.prod, aura_shapes.values())) == 334_534_931


@pytest.mark.parametrize("half", ["", "encoder.", "decoder."])
def test_the_sizes_of_the_official_model_are_read_off_its_shapes(aura, aura_shapes, half):
    shapes = {name: shape for name, shape in aura_shapes.items() if name.startswith(half)}
    assert Architecture.from_shapes(shapes) == aura


@pytest.mark.parametrize("half", ["", "encoder.", "decoder."])
@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(32, (1, 1, 2, 2), 1, 16),
        Architecture(64, (1,), 3, 4),
        Architecture(32, (1, 3, 2), 2, 7),
        Architecture(64, (1,) * 12, 1, 16),
    ],
    ids=str,
)
def test_any_sizes_are_read_off_their_shapes(architecture, half):
    shapes = {n: s for n, s in expected_shapes(architecture).items() if n.startswith(half)}
    assert Architecture.from_shapes(shapes) == architecture
