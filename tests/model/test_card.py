"""Weights with a card: tied ones load like whole ones, and the card decides the latent space."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from auravae_cli.errors import WeightsError
from auravae_cli.model.checkpoints import ties
from auravae_cli.model.checkpoints.read import read_checkpoint
from auravae_cli.model.codec import load_codec
from auravae_cli.model.spec.config import Architecture, SpaceSpec
from auravae_cli.symmetry.group import Irreps
from auravae_cli.train.recipe import Recipe, Stage
from auravae_cli.train.write_model import write_weights
from tests.model.expected_shapes import expected_shapes

IRREPS = Irreps.parse("6xee+1xoe+1xeo")
RECIPE = Recipe(
    name="tiny",
    architecture=Architecture(32, (1, 2), 1, 8),
    space=SpaceSpec(8, 2, IRREPS, 5.0),
    stages=(Stage(1, 16, 1),),
)


@pytest.fixture(scope="module")
def weights():
    """Exactly equivariant weights that float16 holds."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: (torch.randn(shape, generator=generator) / 16).half().float()
        for name, shape in expected_shapes(RECIPE.architecture).items()
    }
    half = {n: t.half() for n, t in ties.representatives(state, IRREPS).items()}
    return ties.expand({n: t.float() for n, t in half.items()}, IRREPS)


@pytest.fixture
def tied_path(tmp_path, weights):
    path = tmp_path / "tied.safetensors"
    write_weights(path, weights, RECIPE, {"steps": 7})
    return path


@pytest.fixture
def rewrite(tied_path):
    """Change the tied file's card or tensors: a dict is merged, anything else takes its place."""

    def change(card=None, tensors=None):
        stored = load_file(tied_path)
        text = card
        if card is None or isinstance(card, dict):
            facts = {"kind": "network", "tied": True, "irreps": str(IRREPS), "clamp": 5.0}
            merged = {k: v for k, v in (facts | (card or {})).items() if v is not None}
            text = json.dumps(merged)
        save_file(stored | (tensors or {}), tied_path, {"auravae": text})
        return tied_path

    return change


def test_a_tied_file_loads_to_the_whole_weights(tied_path, load, weights):
    found = load(tied_path)
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_of_a_tied_file(tied_path, load, weights, half):
    found = load(tied_path, (half,))
    assert found.keys() == {name for name in weights if name.startswith(half)}
    assert all(torch.equal(found[name], weights[name]) for name in found)


def test_a_tied_file_holds_a_quarter_and_a_card(tied_path, weights):
    whole = sum(tensor.numel() for tensor in weights.values())
    assert sum(tensor.numel() for tensor in load_file(tied_path).values()) < 0.3 * whole
    assert tied_path.stat().st_size < 0.35 * 2 * whole


def test_weights_that_are_learned_are_stored_whole(tmp_path, weights, load):
    path = tmp_path / "whole.safetensors"
    write_weights(path, weights, replace(RECIPE, equivariance="learned"), {})
    assert read_checkpoint(path).state.keys() == weights.keys()
    found = load(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_the_card_decides_the_space(tied_path, rewrite):
    space = load_codec(str(tied_path), device="cpu").space
    assert (space.irreps, space.clamp, space.downsampling_factor) == (IRREPS, 5.0, 2)
    other = load_codec(str(rewrite({"clamp": 0.5})), device="cpu").space
    assert (other.irreps, other.clamp) == (IRREPS, 0.5)
    assert other.weights_sha256 != space.weights_sha256


def test_the_clamp_of_the_card_is_applied(rewrite):
    codec = load_codec(str(rewrite({"clamp": 0.01})), device="cpu")
    latents = codec.encode(torch.rand(1, 3, 8, 8) * 2 - 1)
    assert latents.abs().max() == torch.tensor(0.01)


def test_what_the_card_leaves_open_is_the_references(tmp_path, weights, save):
    space = load_codec(str(save(weights)), device="cpu").space
    assert (str(space.irreps), space.clamp) == ("4xee+2xoe+2xeo", 8.0)


@pytest.mark.parametrize(
    "card",
    ["{", "[]", {"irreps": "8xzz"}, {"clamp": "wide"}, {"irreps": None}, {"tied": None}],
    ids=str,
)
def test_a_card_that_does_not_tell_how_to_read_is_refused(rewrite, card):
    path = rewrite(card)
    with pytest.raises(WeightsError) as caught:
        load_codec(str(path), device="cpu")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("irreps", ["7xee", "9xee", "1xee", "16xee+2xoo"])
def test_irreps_that_do_not_add_up_are_refused(rewrite, irreps):
    path = rewrite({"irreps": irreps})
    with pytest.raises(WeightsError) as caught:
        load_codec(str(path), device="cpu")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("tied", [True, False])
def test_so_they_are_where_half_of_the_weights_does_not_show_it(rewrite, weights, tied, tmp_path):
    path = rewrite({"irreps": "4xee"})
    if not tied:
        card = {"kind": "network", "irreps": "4xee"}
        save_file(weights, path, {"auravae": json.dumps(card)})
    for half in ("encoder", "decoder"):
        with pytest.raises(WeightsError) as caught:
            load_codec(str(path), parts=(half,), device="cpu")
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (8, 5), (8, 3, 1, 1), (2, 0, 3, 3), (1,) * 6])
@pytest.mark.parametrize(
    "name",
    [
        "encoder.conv_in.weight",
        "encoder.conv_out.bias",
        "encoder.conv_out.weight",
        "encoder.down.0.downsample.conv.weight",
        "decoder.conv_in.weight",
        "decoder.mid.attn_1.qkv.weight",
        "decoder.norm_out.weight",
    ],
)
def test_representatives_of_wrong_shapes_are_refused(rewrite, name, shape):
    path = rewrite(tensors={name: torch.zeros(shape)})
    with pytest.raises(WeightsError) as caught:
        load_codec(str(path), device="cpu")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_representatives_that_are_no_plain_numbers_are_refused(rewrite, tied_path, dtype):
    name = "decoder.conv_in.weight"
    path = rewrite(tensors={name: load_file(tied_path)[name].to(dtype)})
    with pytest.raises(WeightsError, match=r"decoder\.conv_in\.weight|representatives"):
        load_codec(str(path), device="cpu")
