"""Muon (Jordan et al. 2024): momentum with orthogonalised matrices.

A convolution [out, in, kH, kW] counts as a matrix [out, in * kH * kW]. Steps are scaled to the
size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so one learning rate suits both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAMW_RMS = 0.2  # the usual size of an AdamW step, relative to its learning rate


class Muon(torch.optim.Optimizer):
    """For parameters of two axes or more."""

    def __init__(
        self,
        params: Iterable[Tensor] | list[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; a ``closure`` is not supported."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            matrices = [self._direction(p, group["momentum"]).flatten(1) for p in parameters]
            for parameter, matrix, factor in zip(
                parameters, matrices, _factors(matrices), strict=True
            ):
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                step = -group["lr"] * ADAMW_RMS * max(matrix.shape) ** 0.5
                parameter.view(matrix.shape).addmm_(*_in_order(matrix, factor), alpha=step)

    def _direction(self, parameter: Tensor, decay: float) -> Tensor:
        """Return the gradient with Nesterov's momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - decay)
        return gradient.lerp(momentum, decay)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return the matrix with its singular values brought near 1, by a quintic Newton-Schulz iteration."""
    left, right = _in_order(matrix, _factors([matrix])[0])
    return left @ right


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _in_order(matrix: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    return (matrix, factor) if _is_tall(matrix) else (factor, matrix)


def _factors(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return the square factor that makes each matrix orthogonal, on its shorter side.

    A step of the iteration multiplies X by P = a + b G + c G^2, where G = X X^T, and makes G to P G P. All
    commute, so the product of all P is computed, in the size of G: the long matrix takes part in two products,
    not in two of every step. What float32 loses of G are singular values below 1e-3 of the largest. Matrices
    of one size are iterated together.
    """
    grams = [m.T @ m if _is_tall(m) else m @ m.T for m in matrices]
    factors: list[Tensor] = [torch.empty(0)] * len(grams)
    for size in {len(gram) for gram in grams}:
        places = [n for n, gram in enumerate(grams) if len(gram) == size]
        for place, factor in zip(
            places, _iterated(torch.stack([grams[n] for n in places])), strict=True
        ):
            factors[place] = factor
    return factors


def _iterated(gram: Tensor) -> Tensor:
    """Multiply up the steps for matrices of these products with themselves, [B, n, n] => [B, n, n]."""
    a, b, c = NEWTON_SCHULZ
    norm = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].sqrt()
    inverse = 1 / (norm + 1e-7)
    gram = gram * inverse.square()
    one = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    product = one * inverse
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(b * gram + a * one, gram, gram, alpha=c)
        product, gram = factor @ product, factor @ gram @ factor
    return product
