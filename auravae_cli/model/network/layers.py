"""The building blocks of the autoencoder. All act on features [B, C, H, W].

The attribute names are the reference's, and so those of every checkpoint: ``ae.py`` of
cloneofsimo/vqgan-training at commit 03e04401, which is FLUX's autoencoder with another attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.spec.config import HEAD_CHANNELS, NORM_EPSILON, NORM_GROUPS


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a normalisation over 32 groups. torch keeps its statistics in float32 at any precision."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPSILON)


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Return a convolution that keeps the size, with a border of zeros."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


def silu(x: Tensor) -> Tensor:
    """Return x * sigmoid(x), written over ``x`` if no gradient needs it again."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 shortcut if the width changes."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = conv3x3(channels_in, channels_out)
        self.norm2 = group_norm(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(silu(self.norm1(x)))
        hidden = self.conv2(silu(self.norm2(hidden)))
        shortcut = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        return shortcut + hidden if torch.is_grad_enabled() else hidden.add_(shortcut)


class AttentionBlock(nn.Module):
    """Self-attention over all positions, with heads of 64 channels, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, kernel_size=1, bias=False)
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        split = (3, channels // HEAD_CHANNELS, HEAD_CHANNELS)
        heads = self.qkv(self.norm(x)).view(batch, *split, height * width)
        # Contiguous; otherwise torch uses a method that keeps all (H*W)^2 products in memory.
        query, key, value = heads.transpose(3, 4).contiguous().unbind(1)  # [B, heads, H*W, 64]
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(attended.transpose(2, 3).reshape(batch, channels, height, width))


class Downsample(nn.Module):
    """Halves height and width. The border of zeros is only on the right and the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width: repeats every pixel four times, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
