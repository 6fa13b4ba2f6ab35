"""Convolutions as products of matrices: with few pixels or channels, torch's spend more on reordering.

``conv`` is a convolution with weights [out, in, k, k], tied or not; features are bfloat16, [B, C, H, W].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from auravae_cli.model.network.layers import Downsample


def convolve_by_products(conv: Any, x: Tensor) -> Tensor:
    """Run a 1x1 or 3x3 convolution: [B, in, H, W] => [B, out, H, W]."""
    weight = conv.weight.to(x.dtype)
    out, channels, taps, _ = weight.shape
    bias = x.new_zeros(out) if conv.bias is None else conv.bias.to(x.dtype)
    if taps > 1 and out < channels:
        y: Tensor = _ToFew.apply(x, weight, bias)
        return y
    columns = x.flatten(2) if taps == 1 else F.unfold(x, taps, padding=1)
    return _product(columns, weight, bias).unflatten(2, x.shape[2:])


def halve(downsample: Downsample, x: Tensor) -> Tensor:
    """Downsample [B, C, H, W] => [B, C, H // 2, W // 2].

    A tied kernel reads only the upper left 2 x 2 taps, so it needs no border.
    """
    conv: Any = downsample.conv
    weight, bias = conv.weight[..., :2, :2].to(x.dtype), conv.bias.to(x.dtype)
    batch, channels, height, width = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    squares = x[..., : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2))
    columns = squares.permute(0, 1, 3, 5, 2, 4).reshape(batch, 4 * channels, height * width)
    return _product(columns, weight, bias).unflatten(2, (height, width))


def linear(conv: Any, tokens: Tensor) -> Tensor:
    """Run a 1x1 convolution on [B, N, in] => [B, N, out]."""
    bias = None if conv.bias is None else conv.bias.to(tokens.dtype)
    return F.linear(tokens, conv.weight.flatten(1).to(tokens.dtype), bias)


def _product(columns: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y: Tensor = _Product.apply(columns, weight.flatten(1), bias)
    return y


class _Product(torch.autograd.Function):
    """columns [B, in, N], weight [out, in], bias [out] => [B, out, N]."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(columns, weight)
        y = torch.bmm(weight.expand(len(columns), -1, -1), columns)
        return y.add_(bias[:, None])  # baddbmm would first make the bias as large as the result

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        columns, weight = ctx.saved_tensors
        dcolumns = None
        if ctx.needs_input_grad[0]:
            dcolumns = torch.bmm(weight.T.expand(len(dy), -1, -1), dy)
        dweight = torch.bmm(dy, columns.transpose(1, 2)).sum(0, dtype=torch.float32)
        return dcolumns, dweight.to(weight.dtype), dy.sum(2).sum(0)


class _ToFew(torch.autograd.Function):
    """A 3x3 convolution to few channels: x [B, in, H, W], weight [out, in, 3, 3], bias [out] => [B, out, H, W].

    Its gradients are products with the 3x3 surroundings of the few channels, a small matrix.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        columns = F.unfold(dy, 3, padding=1)  # [B, 9 * out, H * W]
        turned = weight.flip(2, 3).transpose(0, 1).flatten(1)  # [in, 9 * out]
        dx = torch.bmm(turned.expand(len(dy), -1, -1), columns).view_as(x)
        products = torch.bmm(columns, x.flatten(2).transpose(1, 2)).sum(0, dtype=torch.float32)
        dweight = products.view(len(weight), 3, 3, -1).flip(1, 2).permute(0, 3, 1, 2)
        return dx, dweight.to(weight.dtype), dy.sum((2, 3)).sum(0)
