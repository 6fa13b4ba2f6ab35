"""The path that is trained, for CPUs with bfloat16: the same function of the same parameters.

Features are bfloat16, sums and norms float32, as under autocast. Tied 3x3 convolutions and norms
with SiLU run in kernels.c; the rest, a tenth of the work, in torch, most of it as products of matrices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.network.autoencoder import Decoder, Encoder, Middle
from auravae_cli.model.network.layers import AttentionBlock, ResnetBlock
from auravae_cli.model.spec.config import HEAD_CHANNELS
from auravae_cli.train.kernels import LANES, Kernels, convolve, normalise
from auravae_cli.train.products import convolve_by_products, halve, linear
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
        x = convolve_by_products(encoder.conv_in, images.bfloat16())
        for level in encoder.down:
            x = self._level(level, x)
        x = self._norm(encoder.norm_out, self._middle(encoder.mid, x))
        return convolve_by_products(encoder.conv_out, x)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, C, h, w] => images, bfloat16."""
        decoder: Decoder = self.autoencoder.decoder
        x = self._middle(decoder.mid, convolve_by_products(decoder.conv_in, latents.bfloat16()))
        for level in reversed(decoder.up):
            x = self._level(level, x)
        return convolve_by_products(decoder.conv_out, self._norm(decoder.norm_out, x))

    def _level(self, level: Any, x: Tensor) -> Tensor:
        for block in level.block:
            x = self._block(block, x)
        if hasattr(level, "downsample"):
            return halve(level.downsample, x)
        if hasattr(level, "upsample"):
            return self._convolve(level.upsample.conv, x, doubled=True)
        return x

    def _middle(self, middle: Middle, x: Tensor) -> Tensor:
        x = _attend(middle.attn_1, self._block(middle.block_1, x))
        return self._block(middle.block_2, x)

    def _block(self, block: ResnetBlock, x: Tensor) -> Tensor:
        hidden = self._convolve(block.conv1, self._norm(block.norm1, x))
        shortcut = (
            convolve_by_products(block.nin_shortcut, x) if hasattr(block, "nin_shortcut") else x
        )
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


def _group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Run a group norm in torch, with statistics in float32."""
    return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps).to(x.dtype)


def _attend(block: AttentionBlock, x: Tensor) -> Tensor:
    tokens = _group_norm(block.norm, x).flatten(2).transpose(1, 2)  # [B, N, C]
    heads = linear(block.qkv, tokens).unflatten(2, (3, -1, HEAD_CHANNELS))
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    if tokens.shape[1] > FEW_TOKENS:
        attended = F.scaled_dot_product_attention(query, key, value)
    else:  # faster: torch's own saves memory, not time
        scores = HEAD_CHANNELS**-0.5 * query @ key.transpose(2, 3)
        attended = scores.softmax(-1) @ value
    result = linear(block.proj_out, attended.transpose(1, 2).flatten(2))
    return x + result.transpose(1, 2).unflatten(2, x.shape[2:])
