"""Muon: steps are orthogonal matrices of AdamW's size, and go downhill."""

from __future__ import annotations

import pytest
import torch

from auravae_cli.train.muon import ITERATIONS, NEWTON_SCHULZ, Muon, orthogonalised

SHAPES = [(64, 16), (16, 64), (8, 144), (100, 3), (1, 12)]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one(shape, scale):
    values = torch.linalg.svdvals(orthogonalised(scale * draw(*shape)))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_small_singular_values_too():
    u, _, vh = torch.linalg.svd(draw(24, 12), full_matrices=False)
    values = torch.linalg.svdvals(orthogonalised(u @ torch.logspace(0, -2, 12).diag() @ vh))
    assert values.min() > 0.5
    assert values.max() < 1.5


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay(shape):
    u, _, vh = torch.linalg.svd(draw(*shape), full_matrices=False)
    core = u.T @ orthogonalised(draw(*shape)) @ vh.T
    assert (core - core.diag().diag()).abs().max() < 1e-3
    assert core.diag().min() > 0.5


def step_by_step(matrix):
    """The iteration as published, on the matrix itself."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm()
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("shape", [*SHAPES, (64, 2304)])
def test_it_is_the_published_iteration(shape):
    expected = step_by_step(draw(*shape).double()).float()
    torch.testing.assert_close(orthogonalised(draw(*shape)), expected, rtol=0, atol=2e-5)


def test_nothing_becomes_nothing():
    assert torch.equal(orthogonalised(torch.zeros(4, 6)), torch.zeros(4, 6))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("shape", [(64, 16, 3, 3), (256, 16, 1, 1), (16, 64, 1, 1), (32, 128)])
def test_a_step_has_the_size_of_one_of_adamw(shape, scale):
    parameter = draw(*shape).requires_grad_()
    before = parameter.detach().clone()
    parameter.grad = scale * draw(*shape, seed=1)
    Muon([parameter], lr=0.01).step()
    step = (parameter.detach() - before) / 0.01
    assert 0.2 * 0.5 < step.square().mean().sqrt() < 0.2 * 1.2
    assert (step * parameter.grad).sum() < 0


def test_weight_decay_shrinks_what_has_no_gradient_to_speak_of():
    parameter = torch.ones(4, 6, requires_grad=True)
    parameter.grad = torch.zeros(4, 6)
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(parameter.detach(), torch.full((4, 6), 0.95))


def test_parameters_together_move_as_alone():
    def moved(optimize):
        parameters = [draw(*shape, seed=n).requires_grad_() for n, shape in enumerate(SHAPES * 2)]
        for n, parameter in enumerate(parameters):
            parameter.grad = draw(*parameter.shape, seed=100 + n)
        optimize(parameters)
        return [parameter.detach() for parameter in parameters]

    together = moved(lambda parameters: Muon(parameters, lr=0.01).step())
    alone = moved(lambda parameters: [Muon([p], lr=0.01).step() for p in parameters])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_parameters_without_a_gradient_are_left_alone():
    parameter = torch.ones(4, 6, requires_grad=True)
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(parameter.detach(), torch.ones(4, 6))


def test_momentum_remembers_the_last_gradients():
    moved = []
    for remembered in (True, False):
        parameter = torch.zeros(4, 6, requires_grad=True)
        optimizer = Muon([parameter], lr=0.1, momentum=0.9 if remembered else 0.0)
        for seed in (0, 1):
            before = parameter.detach().clone()
            parameter.grad = draw(4, 6, seed=seed)
            optimizer.step()
        moved.append(parameter.detach() - before)
    assert (moved[0] - moved[1]).abs().max() > 1e-3


def test_a_quadratic_is_minimised():
    target = draw(8, 3, 2, 2)
    parameter = torch.zeros(8, 3, 2, 2, requires_grad=True)
    optimizer = Muon([parameter], lr=0.1)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 150)
        optimizer.zero_grad()
        (parameter - target).square().sum().backward()
        optimizer.step()
    assert (parameter - target).norm() < 0.2 * target.norm()
