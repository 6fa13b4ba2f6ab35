"""The path that is trained, for CPUs with bfloat16: the same function of the same parameters.

Features are bfloat16, sums and norms float32, as under autocast. Tied 3x3 convolutions and norms
with SiLU run in kernels.c; the rest, a tenth of the work, in torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.network.autoencoder import Decoder, Encoder, Middle
from auravae_cli.model.network.layers import AttentionBlock, Downsample, ResnetBlock
from auravae_cli.model.spec.config import HEAD_CHANNELS
from auravae_cli.train.kernels import LANES, Kernels, convolve, normalise
from auravae_cli.train.trainable import TrainedAutoencoder, Window

FEW_TOKENS = 1024  # of attention: whose table of scores is a few megabytes a picture


class FastAutoencoder:
    """Called like a `TrainedAutoencoder` with tied weights, whose parameters get the gradients."""

    def __init__(self, autoencoder: TrainedAutoencoder, kernels: Kernels) -> None:
        self.autoencoder, self.kernels = autoencoder, kernels

    def __call__(
        self,
        images: Tensor,
        factors: Tensor | None = None,
        flips: Tensor | None = None,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run like `TrainedAutoencoder.forward`; ``flips`` are for weights that are not tied."""
        assert flips is None
        clamp = self.autoencoder.clamp
        with torch.autocast("cpu", enabled=False):  # weights are combined before they are rounded
            raw = self.encode(images).float()
            latent = raw.clamp(-clamp, clamp)
            latent = latent if factors is None else latent * factors
            latent = latent if window is None else window.of_latent(latent)
            return self.decode(latent).float(), raw

    def encode(self, images: Tensor) -> Tensor:
        """Encode images [B, 3, H, W] => raw latents, bfloat16."""
        encoder: Encoder = self.autoencoder.encoder
        x = _plain(encoder.conv_in, images.bfloat16())
        for level in encoder.down:
            x = self._level(level, x)
        x = self._norm(encoder.norm_out, self._middle(encoder.mid, x))
        return _plain(encoder.conv_out, x)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, C, h, w] => images, bfloat16."""
        decoder: Decoder = self.autoencoder.decoder
        x = self._middle(decoder.mid, _plain(decoder.conv_in, latents.bfloat16()))
        for level in reversed(decoder.up):
            x = self._level(level, x)
        return _plain(decoder.conv_out, self._norm(decoder.norm_out, x))

    def _level(self, level: Any, x: Tensor) -> Tensor:
        for block in level.block:
            x = self._block(block, x)
        if hasattr(level, "downsample"):
            return _halve(level.downsample, x)
        if hasattr(level, "upsample"):
            return self._convolve(level.upsample.conv, x, doubled=True)
        return x

    def _middle(self, middle: Middle, x: Tensor) -> Tensor:
        x = _attend(middle.attn_1, self._block(middle.block_1, x))
        return self._block(middle.block_2, x)

    def _block(self, block: ResnetBlock, x: Tensor) -> Tensor:
        hidden = self._convolve(block.conv1, self._norm(block.norm1, x))
        shortcut = _plain(block.nin_shortcut, x) if hasattr(block, "nin_shortcut") else x
        return self._convolve(block.conv2, self._norm(block.norm2, hidden), shortcut)

    def _norm(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        if x.shape[-2:].numel() % LANES:
            return F.silu(_group_norm(norm, x))
        # The four blocks of channels have equal weights, and equal biases.
        scale, shift = (_representatives(norm, name).repeat(4) for name in ("weight", "bias"))
        return normalise(self.kernels, x, scale, shift, norm.num_groups, norm.eps)

    def _convolve(
        self, conv: Any, x: Tensor, residual: Tensor | None = None, doubled: bool = False
    ) -> Tensor:
        weight, bias = (_representatives(conv, name) for name in ("weight", "bias"))
        scale = 1 + doubled
        width = scale * x.shape[-1]
        two_share = width <= LANES // 2 and len(x) % 2 == 0  # a vector of columns
        missing = -width % (LANES // (1 + two_share))
        if not missing:
            return convolve(self.kernels, x, weight, bias, residual, doubled)
        x = F.pad(x, (0, missing // scale))  # zeros, as beyond any border
        residual = None if residual is None else F.pad(residual, (0, missing))
        return convolve(self.kernels, x, weight, bias, residual, doubled)[..., :width]


def _representatives(layer: Any, name: str) -> Tensor:
    """Return the part of a tied tensor that is trained."""
    tensor: Tensor = getattr(layer.parametrizations, name).original
    return tensor


def _plain(conv: Any, x: Tensor) -> Tensor:
    """Run a 1x1 or 3x3 convolution as a product of matrices: torch's reorders its arguments first."""
    weight = conv.weight.to(x.dtype)
    out, channels, taps, _ = weight.shape
    bias = x.new_zeros(out) if conv.bias is None else conv.bias.to(x.dtype)
    if taps > 1 and out < channels:
        y: Tensor = _ToFew.apply(x, weight, bias)
        return y
    columns = x.flatten(2) if taps == 1 else F.unfold(x, taps, padding=1)
    return _product(columns, weight, bias).unflatten(2, x.shape[2:])


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


def _group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Run a group norm in torch, with statistics in float32."""
    return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps).to(x.dtype)


def _halve(downsample: Downsample, x: Tensor) -> Tensor:
    """Downsample: a tied kernel reads only the upper left 2 x 2 taps, so it needs no border."""
    conv: Any = downsample.conv
    weight, bias = conv.weight[..., :2, :2].to(x.dtype), conv.bias.to(x.dtype)
    batch, channels, height, width = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    squares = x[..., : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2))
    columns = squares.permute(0, 1, 3, 5, 2, 4).reshape(batch, 4 * channels, height * width)
    return _product(columns, weight, bias).unflatten(2, (height, width))


def _attend(block: AttentionBlock, x: Tensor) -> Tensor:
    tokens = _group_norm(block.norm, x).flatten(2).transpose(1, 2)  # [B, N, C]
    heads = _linear(block.qkv, tokens).unflatten(2, (3, -1, HEAD_CHANNELS))
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    if tokens.shape[1] > FEW_TOKENS:
        attended = F.scaled_dot_product_attention(query, key, value)
    else:  # faster: torch's own saves memory, not time
        scores = HEAD_CHANNELS**-0.5 * query @ key.transpose(2, 3)
        attended = scores.softmax(-1) @ value
    result = _linear(block.proj_out, attended.transpose(1, 2).flatten(2))
    return x + result.transpose(1, 2).unflatten(2, x.shape[2:])


def _linear(conv: Any, tokens: Tensor) -> Tensor:
    """Run a 1x1 convolution on [B, N, in] => [B, N, out]."""
    bias = None if conv.bias is None else conv.bias.to(tokens.dtype)
    return F.linear(tokens, conv.weight.flatten(1).to(tokens.dtype), bias)
