"""Which parameter goes to which optimizer, and at what rate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from auravae_cli.model.spec.config import Architecture
from auravae_cli.train.optimizers import build_optimizers, learning_rate, update
from auravae_cli.train.recipe import Optimizer, Recipe, Stage
from auravae_cli.train.trainable import build

RECIPE = Recipe("x", Architecture(32, (1, 2), 1, 16), (Stage(10, 16, 1),))


@pytest.mark.parametrize("equivariance", ["exact", "learned"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer(make_recipe, kind, equivariance):
    recipe = make_recipe(kind=kind, equivariance=equivariance)
    module = build(recipe)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    optimizers = build_optimizers(module, recipe.optimizer)
    found = [
        (type(optimizer).__name__, names[id(parameter)], group["weight_decay"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(name for _, name, _ in found) == sorted(names.values())
    for optimizer, name, decay in found:
        is_matrix = module.get_parameter(name).ndim > 1
        is_end = "conv_in" in name or "conv_out" in name
        assert (decay > 0) == is_matrix, name
        assert (optimizer == "Muon") == (kind == "muon" and is_matrix and not is_end), name


def test_the_rate_rises_and_falls():
    recipe = replace(RECIPE, optimizer=Optimizer(learning_rate=2.0, warmup_steps=4, decay=0.4))
    rates = [learning_rate(step, recipe) for step in range(11)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0])


def test_a_longer_run_has_the_same_rates_until_a_shorter_one_would_decay():
    short = replace(RECIPE, stages=(Stage(10, 16, 1),), optimizer=Optimizer(decay=0.2))
    long = replace(short, stages=(Stage(50, 16, 1),))
    assert [learning_rate(step, short) for step in range(8)] == [
        learning_rate(step, long) for step in range(8)
    ]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(steps=st.integers(1, 50), warmup=st.integers(0, 80))
def test_the_rate_is_positive_until_the_end(steps, warmup):
    settings_ = Optimizer(learning_rate=1e-3, warmup_steps=warmup)
    recipe = replace(RECIPE, stages=(Stage(steps, 16, 1),), optimizer=settings_)
    rates = [learning_rate(step, recipe) for step in range(steps)]
    assert all(0 < rate <= 1e-3 for rate in rates)
    top = rates.index(max(rates))
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)


def test_a_long_gradient_is_clipped_and_its_norm_told():
    module = torch.nn.Linear(2, 1, bias=False)
    before = module.weight.detach().clone()
    module.weight.grad = torch.tensor([[30.0, 40.0]])
    assert update([torch.optim.SGD(module.parameters())], module, 0.5, 1.0) == pytest.approx(50)
    torch.testing.assert_close(before - module.weight.detach(), 0.5 * torch.tensor([[0.6, 0.8]]))
    assert module.weight.grad is None


@pytest.mark.parametrize(("kind", "share"), [("muon", 0.1), ("adamw", 1.0)])
def test_beside_muon_adamw_has_a_rate_of_its_own(make_recipe, kind, share):
    """Alone, it moves everything at the rate of the recipe."""
    module = build(make_recipe())
    optimizers = build_optimizers(module, Optimizer(kind, adamw_rate=0.1))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update(optimizers, module, 0.5, 1.0)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert rates == [0.5 * share, 0.5 * share, 0.5][: len(rates)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(bad):
    module = torch.nn.Linear(2, 1)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    module.weight.grad[0, 0] = bad
    assert not math.isfinite(update([optimizer], module, 0.5, 1.0))
    for parameter, old in zip(module.parameters(), before, strict=True):
        assert torch.equal(parameter.detach(), old)
        assert parameter.grad is None
    assert not optimizer.state
