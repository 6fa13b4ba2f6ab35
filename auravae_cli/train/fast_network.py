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
        x = _plain(encoder.conv_in, images.bfloat16(), padding=1)
        for level in encoder.down:
            x = self._level(level, x)
        x = self._norm(encoder.norm_out, self._middle(encoder.mid, x))
        return _plain(encoder.conv_out, x, padding=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, C, h, w] => images, bfloat16."""
        decoder: Decoder = self.autoencoder.decoder
        x = self._middle(decoder.mid, _plain(decoder.conv_in, latents.bfloat16(), padding=1))
        for level in reversed(decoder.up):
            x = self._level(level, x)
        return _plain(decoder.conv_out, self._norm(decoder.norm_out, x), padding=1)

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
        return normalise(self.kernels, x, norm.weight, norm.bias, norm.num_groups, norm.eps)

    def _convolve(
        self, conv: Any, x: Tensor, residual: Tensor | None = None, doubled: bool = False
    ) -> Tensor:
        width = x.shape[-1]
        if missing := -width % (LANES // (1 + doubled)):  # zeros, as beyond any border
            x = F.pad(x, (0, missing))
            residual = None if residual is None else F.pad(residual, (0, missing))
        weight, bias = (
            getattr(conv.parametrizations, name).original for name in ("weight", "bias")
        )
        y = convolve(self.kernels, x, weight, bias, residual, doubled)
        return y[..., : width * (1 + doubled)] if missing else y


def _plain(conv: Any, x: Tensor, **options: int) -> Tensor:
    """Run a convolution in torch."""
    weight = conv.weight.to(x.dtype)
    bias = x.new_zeros(len(weight)) if conv.bias is None else conv.bias.to(x.dtype)
    if conv.kernel_size != (1, 1):
        return F.conv2d(x, weight, bias, **options)
    y: Tensor = _Pointwise.apply(x, weight.flatten(1), bias)
    return y


class _Pointwise(torch.autograd.Function):
    """A 1x1 convolution as a product of matrices: torch's convolution reorders its arguments first.

    x [B, in, H, W], weight [out, in], bias [out] => [B, out, H, W]
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        flat = x.flatten(2)
        ctx.save_for_backward(flat, weight)
        y = torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), flat)
        return y.unflatten(2, x.shape[2:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        flat = dy.flatten(2)
        dx = torch.bmm(weight.T.expand(len(x), -1, -1), flat).unflatten(2, dy.shape[2:])
        dweight = torch.bmm(flat, x.transpose(1, 2)).sum(0, dtype=torch.float32)
        return dx, dweight.to(weight.dtype), flat.sum((0, 2))


def _group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Run a group norm in torch, with statistics in float32."""
    return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps).to(x.dtype)


def _halve(downsample: Downsample, x: Tensor) -> Tensor:
    """Downsample: a tied kernel reads only the upper left 2 x 2 taps, so it needs no border."""
    conv: Any = downsample.conv
    return F.conv2d(x, conv.weight[..., :2, :2].to(x.dtype), conv.bias.to(x.dtype), stride=2)


def _attend(block: AttentionBlock, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    heads = _plain(block.qkv, _group_norm(block.norm, x))
    split = heads.view(batch, 3, channels // HEAD_CHANNELS, HEAD_CHANNELS, height * width)
    query, key, value = split.transpose(3, 4).contiguous().unbind(1)
    attended = F.scaled_dot_product_attention(query, key, value)
    return x + _plain(block.proj_out, attended.transpose(2, 3).reshape(x.shape))
