"""Muon (Jordan et al. 2024): momentum with orthogonalised matrices.

A convolution [out, in, kH, kW] counts as a matrix [out, in * kH * kW]. Steps are scaled to the
size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so one learning rate suits both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalised(parameter.grad.lerp(momentum, group["momentum"]).flatten(1))
                update = update * (ADAMW_RMS * max(update.shape) ** 0.5)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"])


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return the matrix with its singular values brought near 1, by a quintic Newton-Schulz iteration.

    A step multiplies X by P = a + b G + c G^2, where G = X X^T, and makes G to P G P. All commute, so the
    product of all P is computed first, in the size of G: the long matrix takes part in two products, not
    in two of every step. What float32 loses of G are singular values below 1e-3 of the largest.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    gram, product = x @ x.T, torch.eye(len(x), device=x.device, dtype=x.dtype)
    for _ in range(ITERATIONS):
        factor = b * gram + c * gram @ gram
        factor.diagonal().add_(a)
        product, gram = factor @ product, factor @ gram @ factor
    x = product @ x
    return x.T if is_tall else x
