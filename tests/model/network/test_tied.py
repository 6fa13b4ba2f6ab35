"""Tied weights: fixed by the group, stored by a quarter, and exactly equivariant."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from auravae_cli.model.checkpoints import ties
from auravae_cli.model.checkpoints.ties import PIXELS, tie_of
from auravae_cli.model.network import tied
from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.spec.config import Architecture
from auravae_cli.symmetry.group import GROUP, HV, E, H, Irreps, V
from tests.model.expected_shapes import expected_shapes

SPACES = ["8xee", "6xee+1xoe+1xeo", "3xee+1xoe+2xeo+2xoo"]
IRREPS = Irreps.parse(SPACES[1])
SMALL = Architecture(32, (1, 2), 1, 8)
ARCHITECTURES = [
    Architecture(64, (1,), 2, 8),
    SMALL,
    Architecture(32, (3, 2, 4), 1, 8),
    Architecture(32, (1, 8), 1, 8),
]


def random_state(architecture, seed=0):
    """Weights under which every layer matters: none is zero, none dominates."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name, shape):
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            return values / shape[1:].numel() ** 0.5
        return 0.3 * values + ("norm" in name and name.endswith("weight"))

    return {n: draw(n, torch.Size(s)) for n, s in expected_shapes(architecture).items()}


def module(architecture, state):
    """Encoder and decoder with these weights."""
    parts = nn.ModuleDict({"encoder": Encoder(architecture), "decoder": Decoder(architecture)})
    parts.load_state_dict(state)
    return parts


def act(g, batch, irreps):
    return batch.flip(g.axes) * torch.tensor(irreps.signs(g), dtype=batch.dtype).view(-1, 1, 1)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.fixture(params=ARCHITECTURES, ids=lambda a: f"{a.ch}x{a.ch_mult}")
def architecture(request):
    return request.param


@pytest.fixture(params=SPACES)
def irreps(request):
    return Irreps.parse(request.param)


# The action


@pytest.mark.parametrize("g", GROUP)
@pytest.mark.parametrize("f", GROUP)
def test_the_action_is_one_of_the_group(f, g, irreps):
    for name, drawn in random_state(SMALL).items():
        tie = tie_of(name, irreps)
        tensor = tie.act(E, drawn) if tie.corner else drawn  # taps outside the corner are dropped
        assert torch.equal(tie.act(E, tensor), tensor), name
        assert torch.equal(tie.act(f, tie.act(g, tensor)), tie.act(f @ g, tensor)), name


@pytest.mark.parametrize("g", [H, V, HV])
def test_no_element_but_e_leaves_weights_as_they_are(g, irreps):
    for name, tensor in random_state(SMALL).items():
        is_even_bias = name in ("encoder.conv_out.bias", "decoder.conv_out.bias") and not any(
            tie_of(name, irreps).output.odd_channels(g)
        )
        assert is_even_bias or not torch.equal(tie_of(name, irreps).act(g, tensor), tensor), name


# Projection and storage


SPACED = [(architecture, SPACES[1]) for architecture in ARCHITECTURES]
SPACED += [(SMALL, SPACES[0]), (SMALL, SPACES[2])]


@pytest.fixture(scope="module", params=SPACED, ids=lambda p: f"{p[0].ch}x{p[0].ch_mult}, {p[1]}")
def projected(request):
    """Projected random weights, with the irreps of their latent."""
    architecture, irreps = request.param
    return ties.project(random_state(architecture), Irreps.parse(irreps)), Irreps.parse(irreps)


def test_projected_weights_are_fixed_bit_for_bit(projected):
    weights, irreps = projected
    assert_equal(ties.project(weights, irreps), weights)
    for g in GROUP:
        acted = {name: tie_of(name, irreps).act(g, t) for name, t in weights.items()}
        assert_equal(acted, weights)


def test_projection_is_the_mean_over_the_group():
    state = random_state(SMALL)
    for name, projected in ties.project(state, IRREPS).items():
        mean = sum(tie_of(name, IRREPS).act(g, state[name]) for g in GROUP) / 4
        torch.testing.assert_close(projected, mean, rtol=1e-5, atol=1e-6)


def test_a_quarter_is_stored_and_gives_the_rest_back(projected):
    weights, irreps = projected
    stored = ties.representatives(weights, irreps)
    assert_equal(ties.expand(stored, irreps), weights)
    sizes = [sum(t.numel() for t in tensors.values()) for tensors in (stored, weights)]
    assert sizes[0] < 0.3 * sizes[1]


def test_odd_latent_channels_have_no_bias(irreps):
    bias = ties.project(random_state(SMALL), irreps)["encoder.conv_out.bias"]
    assert [bool(value) for value in bias] == [parity == "ee" for parity in irreps.parities]


# Networks


@torch.no_grad()
def deviations(architecture, state, irreps):
    """How far encoder and decoder are from equivariant, relative to what they give."""
    network = module(architecture, state)
    factor = architecture.downsampling_factor
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 4 * factor, 6 * factor, generator=generator) * 2 - 1
    latents = torch.randn(2, irreps.dim, 4, 6, generator=generator)
    found = []
    for part, x, before, after in (
        (network["encoder"], images, PIXELS, irreps),
        (network["decoder"], latents, irreps, PIXELS),
    ):
        y = part(x)
        for g in (H, V, HV):
            difference = part(act(g, x, before)) - act(g, y, after)
            found.append(float(difference.norm() / y.norm()))
    return found


def test_tied_networks_are_exactly_equivariant(architecture):
    projected = ties.project(random_state(architecture), IRREPS)
    assert max(deviations(architecture, projected, IRREPS)) <= 1e-5


def test_so_they_are_with_any_latent(irreps):
    projected = ties.project(random_state(SMALL), irreps)
    assert max(deviations(SMALL, projected, irreps)) <= 1e-5


def test_networks_that_are_not_tied_are_not():
    assert min(deviations(SMALL, random_state(SMALL), IRREPS)) > 0.1


# Modules


@pytest.fixture
def network():
    """A small module whose weights are tied."""
    network = module(SMALL, random_state(SMALL))
    tied.tie_weights(network, IRREPS)
    return network


def test_tying_projects_and_keeps_the_names(network):
    assert_equal(tied.whole_state(network), ties.project(random_state(SMALL), IRREPS))


def test_the_whole_state_is_what_the_layers_use(network):
    state = tied.whole_state(network)
    assert state.keys() == expected_shapes(SMALL).keys()
    for name, tensor in state.items():
        path, _, attribute = name.rpartition(".")
        assert torch.equal(getattr(network.get_submodule(path), attribute), tensor), name
        assert not tensor.requires_grad


def test_the_whole_state_of_a_module_that_is_not_tied():
    assert_equal(tied.whole_state(module(SMALL, random_state(SMALL))), random_state(SMALL))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_weights_stay_tied_through_a_step(network, kind):
    before = tied.whole_state(network)
    optimizer = kind(network.parameters(), lr=0.05)
    latents = network["encoder"](torch.rand(2, 3, 6, 8))
    (network["decoder"](latents) * torch.randn(2, 3, 6, 8)).sum().backward()
    optimizer.step()
    after = tied.whole_state(network)
    for name, tensor in after.items():
        assert not torch.equal(tensor, before[name]), name
        for g in GROUP:
            assert torch.equal(tie_of(name, IRREPS).act(g, tensor), tensor), name


def test_loading_a_tied_module_projects(network):
    state = random_state(SMALL, seed=2)
    tied.load_whole_state(network, state)
    assert_equal(tied.whole_state(network), ties.project(state, IRREPS))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_loading_a_module_that_is_not_tied_copies():
    network, state = module(SMALL, random_state(SMALL)), random_state(SMALL, seed=2)
    tied.load_whole_state(network, state)
    assert_equal(tied.whole_state(network), state)
    assert not any(a is b for a, b in zip(network.parameters(), state.values(), strict=True))


def test_a_gradient_is_the_sum_over_the_orbit(irreps):
    for name, tensor in random_state(SMALL).items():
        tie = tie_of(name, irreps)
        stored = tie.representatives(tensor).requires_grad_()
        whole = tie.expand(stored)
        upstream = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3))
        (found,) = torch.autograd.grad(whole, stored, upstream)
        is_fixed = tie.output is not None and tensor.ndim == 1  # an orbit of one
        expected = tie.representatives(upstream) * (1 if is_fixed else 4)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=name)
