"""The building blocks of the autoencoder. All act on features [B, C, H, W].

The attribute names are the reference's, since they are the names in every checkpoint: ``ae.py``
of cloneofsimo/vqgan-training at commit 03e04401, itself FLUX's autoencoder with other attention.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_GROUPS = 32
HEAD_CHANNELS = 64
WINOGRAD_CHANNELS = 16  # the least, in and out, and
WINOGRAD_SIDE = 8  # the least height and width, for which Winograd's method pays


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation over 32 groups. torch keeps its statistics in float32 at any precision."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


class Conv3x3(nn.Conv2d):
    """A convolution that keeps the size, with a border of zeros.

    On a CPU in float32, without gradients, Winograd's method takes half the time of oneDNN's direct
    one: NNPACK's F(6x6, 3x3), which comes with torch. It errs by some 1e-5 of the features' size,
    a hundredth of what an 8-bit step is.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=3, padding=1)
        # With few channels the transforms cost more than the products that they save.
        self._is_wide = min(channels_in, channels_out) >= WINOGRAD_CHANNELS

    def forward(self, x: Tensor) -> Tensor:
        if self._is_wide and suits_winograd(x):
            return torch._nnpack_spatial_convolution(x.contiguous(), self.weight, self.bias, 1)
        return super().forward(x)


def suits_winograd(x: Tensor) -> bool:
    """Whether NNPACK takes such features, and pays for them."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and len(x) > 0
        and min(x.shape[2:]) >= WINOGRAD_SIDE
        and has_nnpack()
    )


@cache
def has_nnpack() -> bool:
    """Whether this torch has NNPACK, and NNPACK likes this processor."""
    try:
        if not torch._nnpack_available():  # which also makes it ready
            return False
        x = torch.ones(1, 16, 16, 16)
        torch._nnpack_spatial_convolution(x, torch.ones(16, 16, 3, 3), None, 1)
    except (AttributeError, RuntimeError):
        return False
    return True


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A convolution that keeps the size, with a border of zeros."""
    return Conv3x3(channels_in, channels_out)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), written over ``x`` where no gradient will ask for it again."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 shortcut where the width changes."""

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
        # Contiguous, or torch falls back to a method that keeps all (H*W)^2 products in memory.
        query, key, value = heads.transpose(3, 4).contiguous().unbind(1)  # [B, heads, H*W, 64]
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(attended.transpose(2, 3).reshape(batch, channels, height, width))


class Downsample(nn.Module):
    """Halves height and width. The border of zeros lies on the right and the bottom alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width: every pixel four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
