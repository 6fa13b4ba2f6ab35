"""The operations between two convolutions, in as few passes over the features as possible.

A group norm is two steps: the statistics, which give a factor and an addend per channel, and their
application, with SiLU in the same pass. A convolution's bias is never added by itself: it is
*pending*, and goes into the factor and addend of the following norm, or into a residual sum.

Each operation runs as a Triton kernel on a GPU (`kernels`), and in torch everywhere else, with the
same result up to the order of sums. Features are [B, C, H, W] in channels-last memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_ROWS = 32  # positions per chunk, at least, and
MOST_CHUNKS = 1024  # chunks, at most, over which statistics are computed


@dataclass(frozen=True)
class Statistics:
    """Statistics per channel, over chunks of ``rows`` positions of ``length``; the last may be shorter.

    ``mean`` and ``squares`` (the sum of squared differences from it) are [B, chunks, C] float32.
    """

    mean: Tensor
    squares: Tensor
    rows: int
    length: int


@cache
def triton_kernels() -> ModuleType | None:
    """Return the kernels; None if Triton is not installed, or has no back end here."""
    try:
        return import_module("auravae_cli.model.gpu.triton_kernels")
    except Exception:  # a broken Triton fails at import in its own ways
        return None


def kernels_for(x: Tensor) -> ModuleType | None:
    """Return the kernels for features like ``x``; None if torch computes them."""
    return triton_kernels() if x.is_cuda else None


def chunk_rows(length: int) -> int:
    """Return the positions per chunk; depends only on the picture, so the batch does not change a result."""
    rows = CHUNK_ROWS
    while rows * MOST_CHUNKS < length:
        rows *= 2
    return rows


def statistics(x: Tensor) -> Statistics:
    """Return the statistics of features."""
    length = x.shape[2] * x.shape[3]
    rows = chunk_rows(length)
    kernels = kernels_for(x)
    mean, squares = kernels.statistics(x, rows) if kernels else _statistics(x, rows)
    return Statistics(mean, squares, rows, length)


def affine(
    found: Statistics,
    weight: Tensor,
    bias: Tensor,
    pending: Tensor | None,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return a norm's factor and addend, [B, C] float32 each.

    ``found`` are the statistics of features to which ``pending`` [C] must still be added. Weight, bias
    and ``pending`` are float32.
    """
    kernels = kernels_for(found.mean)
    function = kernels.affine if kernels else _affine
    scale, shift = function(
        found.mean, found.squares, found.rows, found.length, weight, bias, pending, groups, eps
    )
    return scale, shift


def apply(x: Tensor, scale: Tensor, shift: Tensor, *, silu: bool, over: bool = False) -> Tensor:
    """Return x * scale + shift, then SiLU if requested; written over ``x`` if it is not needed again."""
    kernels = kernels_for(x)
    if kernels:
        return kernels.apply(x, scale, shift, silu, x if over else torch.empty_like(x))
    y = torch.addcmul(shift[:, :, None, None], x.float(), scale[:, :, None, None])
    return (F.silu(y) if silu else y).to(x.dtype)


def add(
    changed: Tensor,
    x: Tensor,
    bias: Tensor | None,
    *,
    border: bool = False,
    wants_statistics: bool = True,
) -> tuple[Tensor, Statistics | None]:
    """Return changed + x + bias, and its statistics. ``changed`` may be overwritten.

    With ``border``, a row of zeros is added below and a column on the right, for a step of stride 2.
    """
    batch, channels, height, width = x.shape
    rows = chunk_rows(height * width)
    out = changed
    if border:
        out = torch.empty(
            (batch, channels, height + 1, width + 1),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        out[:, :, height].zero_()
        out[:, :, :, width].zero_()
    kernels = kernels_for(x)
    if kernels:
        found = kernels.add(changed, x, bias, out, rows if wants_statistics else None)
    else:
        total = changed.float() + x.float()
        if bias is not None:
            total += bias[:, None, None]
        inner = out[:, :, :height, :width]
        inner.copy_(total)
        found = _statistics(inner, rows) if wants_statistics else None
    if found is None:
        return out, None
    mean, squares = found
    return out, Statistics(mean, squares, rows, height * width)


def interleave(phases: Tensor) -> tuple[Tensor, Statistics]:
    """Interleave the four phases of an upsampled picture; return it with its statistics.

    [B, 4 C, h + 1, w + 1] => [B, C, 2 h, 2 w]: phase (a, b), channels (2 a + b) C onwards, holds
    position (2 i + a, 2 j + b) at (i + a, j + b).
    """
    batch, channels, height, width = (
        n - d for n, d in zip(phases.shape, (0, 0, 1, 1), strict=True)
    )
    out = torch.empty(
        (batch, channels // 4, 2 * height, 2 * width),
        dtype=phases.dtype,
        device=phases.device,
        memory_format=torch.channels_last,
    )
    length = 4 * height * width
    rows = chunk_rows(length)
    kernels = kernels_for(phases)
    if kernels:
        mean, squares = kernels.interleave(phases, out, rows)
    else:
        for index, phase in enumerate(phases.chunk(4, 1)):
            a, b = divmod(index, 2)
            out[:, :, a::2, b::2] = phase[:, :, a : a + height, b : b + width]
        mean, squares = _statistics(out, rows)
    return out, Statistics(mean, squares, rows, length)


def _statistics(x: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    batch, channels = x.shape[:2]
    positions = x.permute(0, 2, 3, 1).reshape(batch, -1, channels)
    means, squares = [], []
    for chunk in positions.split(rows, 1):
        variance, mean = torch.var_mean(chunk.float(), dim=1, correction=0)
        means.append(mean)
        squares.append(variance * chunk.shape[1])
    return torch.stack(means, 1), torch.stack(squares, 1)


def _affine(
    mean: Tensor,
    squares: Tensor,
    rows: int,
    length: int,
    weight: Tensor,
    bias: Tensor,
    pending: Tensor | None,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    batch, chunks, channels = mean.shape
    means = mean if pending is None else mean + pending
    counts = torch.full((chunks,), float(rows), device=mean.device)
    counts[-1] = length - rows * (chunks - 1)
    counts = counts[:, None, None]
    total = length * (channels // groups)
    by_group = means.view(batch, chunks, groups, -1)
    middle = (by_group * counts).sum((1, 3)) / total
    around = by_group - middle[:, None, :, None]
    spread = squares.view(batch, chunks, groups, -1) + counts * around * around
    inverse = (spread.sum((1, 3)) / total + eps).rsqrt()
    scale = weight * inverse.repeat_interleave(channels // groups, 1)
    shift = bias - middle.repeat_interleave(channels // groups, 1) * scale
    return scale, shift if pending is None else shift + pending * scale
