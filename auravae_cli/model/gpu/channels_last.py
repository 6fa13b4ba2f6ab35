"""The encoder and the decoder for a GPU: channels-last memory, few passes over the features.

They compute the same function as the modules, and are prepared once from their weights:

- convolutions run without bias, which is added by the next norm or residual sum (see `fused`);
- a residual sum also computes the statistics for the next norm, and leaves room for the border of a
  downsampling step;
- upsampling runs folded (see `phases`), with weights that are rounded once, after the fold;
- attention reads queries, keys and values in place, as the 1x1 convolution wrote them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from auravae_cli.model.gpu import fused
from auravae_cli.model.gpu.folded_upsample import fold_merged, fold_transposed
from auravae_cli.model.gpu.fused import Statistics
from auravae_cli.model.network import autoencoder as plain, layers
from auravae_cli.model.spec.config import HEAD_CHANNELS

LIVE_FEATURES = 6  # full-resolution feature maps in memory at once, where the width halves
ALIGNED = 8  # channels: what a GPU's matrix units take directly
LONG = 16_384  # positions above which cuDNN's attention is worth its planning per size
TRIALS = 3

Prepared = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Features:
    """A feature map in channels-last memory, with its statistics if they are known."""

    values: Tensor
    statistics: Statistics | None = None


def prepare(network: nn.Module, dtype: torch.dtype) -> Prepared:
    """Return a function that runs an `Encoder` or a `Decoder` in ``dtype``: [B, C, H, W] => the same.

    ``network`` should be in float32, so that nothing is rounded twice. It is itself converted to ``dtype``
    and channels-last memory, and shares its weights with the result.
    """
    prepared: Prepared
    if isinstance(network, plain.Encoder):
        prepared = Encoder(network, dtype)
    else:
        assert isinstance(network, plain.Decoder)
        prepared = Decoder(network, dtype)
    network.to(dtype)
    return prepared


class Norm:
    """A group norm of features to which ``pending`` must still be added."""

    def __init__(self, norm: nn.GroupNorm, pending: Tensor | None = None) -> None:
        self._weight, self._bias = norm.weight.detach().float(), norm.bias.detach().float()
        self._pending, self._groups, self._eps = pending, norm.num_groups, norm.eps

    def __call__(self, x: Features, *, silu: bool = True, over: bool = False) -> Tensor:
        found = x.statistics or fused.statistics(x.values)
        scale, shift = fused.affine(
            found, self._weight, self._bias, self._pending, self._groups, self._eps
        )
        return fused.apply(x.values, scale, shift, silu=silu, over=over)


class ResnetBlock:
    """A residual block, which adds the ``pending`` bias of its input."""

    def __init__(
        self, block: layers.ResnetBlock, dtype: torch.dtype, pending: Tensor | None = None
    ) -> None:
        self._norm1 = Norm(block.norm1, pending)
        self._norm2 = Norm(block.norm2, bias_of(block.conv1))
        self._bias = bias_of(block.conv2)
        shortcut = getattr(block, "nin_shortcut", None)
        if shortcut is not None:
            self._bias = self._bias + bias_of(shortcut)
            if pending is not None:
                self._bias = self._bias + shortcut.weight.float().flatten(1) @ pending
        elif pending is not None:
            self._bias = self._bias + pending
        self._shortcut = None if shortcut is None else weight_of(shortcut, dtype).flatten(1)
        self._conv1, self._conv2 = weight_of(block.conv1, dtype), weight_of(block.conv2, dtype)

    def __call__(self, x: Features, *, border: bool = False, is_last: bool = False) -> Features:
        """``border`` and ``is_last``: a downsampling step, or no norm at all, follows."""
        has_shortcut = self._shortcut is not None
        kept = pointwise(x.values, self._shortcut) if self._shortcut is not None else x.values
        hidden = conv(self._norm1(x, over=has_shortcut), self._conv1, padding=1)
        hidden = conv(self._norm2(Features(hidden), over=True), self._conv2, padding=1)
        added = fused.add(hidden, kept, self._bias, border=border, wants_statistics=not is_last)
        return Features(*added)


class Attention:
    """Self-attention over all positions."""

    def __init__(self, block: layers.AttentionBlock, dtype: torch.dtype) -> None:
        self._norm = Norm(block.norm)
        self._qkv = weight_of(block.qkv, dtype).flatten(1)
        self._proj = weight_of(block.proj_out, dtype).flatten(1)

    def __call__(self, x: Features) -> Features:
        batch, channels, height, width = x.values.shape
        length = height * width
        joint = pointwise(self._norm(x, silu=False), self._qkv).permute(0, 2, 3, 1)
        heads = joint.view(batch, length, 3, -1, HEAD_CHANNELS).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)  # views [B, heads, L, 64]
        with attention_backends(query):
            attended = F.scaled_dot_product_attention(query, key, value)
        rows = attended.transpose(1, 2).reshape(batch, height, width, channels)
        return Features(*fused.add(pointwise(rows.permute(0, 3, 1, 2), self._proj), x.values, None))


class Doubling:
    """Folded upsampling, in the form that is faster on this GPU at about this size."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        weight = conv.weight.double()
        self._transposed = arranged(fold_transposed(weight), dtype)
        self._merged = arranged(fold_merged(weight), dtype)
        self._chosen: dict[int, Callable[[Tensor], Features]] = {}

    def __call__(self, x: Tensor) -> Features:
        return self.form(x)(x)

    def transposed(self, x: Tensor) -> Features:
        """Run as one transposed convolution."""
        y = F.conv_transpose2d(x, self._transposed, stride=2, padding=1)
        y = y.contiguous(memory_format=torch.channels_last)
        return Features(y, fused.statistics(y))

    def merged(self, x: Tensor) -> Features:
        """Run as one convolution with four times the channels, then interleave."""
        return Features(*fused.interleave(conv(x, self._merged, padding=1)))

    def form(self, x: Tensor) -> Callable[[Tensor], Features]:
        """Return the faster form: measured once per order of magnitude of the size, and only on a GPU."""
        order = (len(x) * x.shape[2] * x.shape[3]).bit_length()
        if not x.is_cuda or torch.cuda.is_current_stream_capturing():
            return self._chosen.get(order, self.transposed)
        if order not in self._chosen:
            try:
                self._chosen[order] = min((self.transposed, self.merged), key=lambda f: timed(f, x))
            except torch.OutOfMemoryError:  # the merged form takes more memory
                self._chosen[order] = self.transposed
        return self._chosen[order]


class Level:
    """The blocks of one resolution, and the step to the next; ``pending`` is the step's bias."""

    def __init__(self, level: plain.Level, dtype: torch.dtype, pending: Tensor | None) -> None:
        first, *others = (cast(layers.ResnetBlock, block) for block in level.block)
        self._blocks = [ResnetBlock(first, dtype, pending)]
        self._blocks += [ResnetBlock(block, dtype) for block in others]
        self._down: Tensor | None = None
        self._up: Doubling | None = None
        self.pending: Tensor | None = None
        if hasattr(level, "downsample"):
            self.pending = bias_of(level.downsample.conv)
            self._down = weight_of(level.downsample.conv, dtype)
        elif hasattr(level, "upsample"):
            self.pending = bias_of(level.upsample.conv)
            self._up = Doubling(level.upsample.conv, dtype)

    def __call__(self, x: Features) -> Features:
        *others, last = self._blocks
        for block in others:
            x = block(x)
        is_last = self._down is not None or self._up is not None
        x = last(x, border=self._down is not None, is_last=is_last)
        if self._down is not None:
            return Features(conv(x.values, self._down, stride=2))
        return x if self._up is None else self._up(x.values)


class Middle:
    """Block, attention, block."""

    def __init__(self, middle: plain.Middle, dtype: torch.dtype, pending: Tensor | None) -> None:
        self._block_1 = ResnetBlock(middle.block_1, dtype, pending)
        self._attention = Attention(middle.attn_1, dtype)
        self._block_2 = ResnetBlock(middle.block_2, dtype)

    def __call__(self, x: Features) -> Features:
        return self._block_2(self._attention(self._block_1(x)))


class Ends:
    """The first convolution, from few channels, and the last norm and convolution, to few."""

    def __init__(
        self, conv_in: nn.Conv2d, norm: nn.GroupNorm, conv_out: nn.Conv2d, dtype: torch.dtype
    ) -> None:
        self.pending = bias_of(conv_in)
        self._norm, self._bias = Norm(norm), bias_of(conv_out).to(dtype)
        self._missing = -conv_in.in_channels % ALIGNED
        self._conv_in = arranged(F.pad(conv_in.weight, (0, 0, 0, 0, 0, self._missing)), dtype)
        self._conv_out = weight_of(conv_out, dtype)

    def first(self, x: Tensor) -> Features:
        """[B, few, H, W] => features."""
        x = F.pad(x, (0, 0, 0, 0, 0, self._missing))
        x = x.contiguous(memory_format=torch.channels_last)
        return Features(conv(x, self._conv_in, padding=1))

    def last(self, x: Features) -> Tensor:
        """Features => [B, few, H, W], in ordinary memory."""
        activated = self._norm(x, over=True)
        return F.conv2d(activated, self._conv_out, self._bias, padding=1).contiguous()


class Encoder:
    """Encode pixels [B, 3, H, W] => latents [B, C, H/f, W/f], not clamped."""

    def __init__(self, encoder: plain.Encoder, dtype: torch.dtype) -> None:
        self._ends = Ends(encoder.conv_in, encoder.norm_out, encoder.conv_out, dtype)
        self._levels: list[Level] = []
        pending: Tensor | None = self._ends.pending
        for level in encoder.down:
            self._levels.append(Level(cast(plain.Level, level), dtype, pending))
            pending = self._levels[-1].pending
        self._middle = Middle(encoder.mid, dtype, pending)

    def __call__(self, images: Tensor) -> Tensor:
        with on_device_of(images):
            x = self._ends.first(images)
            for level in self._levels:
                x = level(x)
            return self._ends.last(self._middle(x))


class Decoder:
    """Decode latents [B, C, h, w] => pixels [B, 3, f*h, f*w], not clipped."""

    def __init__(self, decoder: plain.Decoder, dtype: torch.dtype) -> None:
        self._ends = Ends(decoder.conv_in, decoder.norm_out, decoder.conv_out, dtype)
        self._middle = Middle(decoder.mid, dtype, self._ends.pending)
        self._levels: list[Level] = []
        pending: Tensor | None = None
        for level in reversed(decoder.up):
            self._levels.append(Level(cast(plain.Level, level), dtype, pending))
            pending = self._levels[-1].pending

    def __call__(self, latents: Tensor) -> Tensor:
        with on_device_of(latents):
            x = self._middle(self._ends.first(latents))
            for level in self._levels:
                x = level(x)
            return self._ends.last(x)


def conv(x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve without bias, channels-last."""
    y = F.conv2d(x, weight, stride=stride, padding=padding)
    return y.contiguous(memory_format=torch.channels_last)


def pointwise(x: Tensor, matrix: Tensor) -> Tensor:
    """Run a 1x1 convolution without bias, as a matrix product in channels-last memory."""
    return F.linear(x.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)


def arranged(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in the layout of the convolutions here."""
    return weight.detach().to(dtype, memory_format=torch.channels_last)


def weight_of(conv: nn.Conv2d, dtype: torch.dtype) -> Tensor:
    """Return a layer's weight, rearranged; the layer keeps using it, so there is only one copy."""
    conv.weight = nn.Parameter(arranged(conv.weight, dtype), requires_grad=False)
    return conv.weight.detach()


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Return a layer's bias in float32."""
    assert conv.bias is not None
    return conv.bias.detach().float()


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of ``x`` current, since Triton launches kernels there, whatever their arguments."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def attention_backends(query: Tensor) -> AbstractContextManager[object]:
    """Prefer cuDNN for large pictures on a GPU: on Hopper it is a quarter faster than FlashAttention 2."""
    if not query.is_cuda or query.shape[2] < LONG:
        return contextlib.nullcontext()
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    return sdpa_kernel(order, set_priority=True)


def timed(function: Callable[[Tensor], object], x: Tensor) -> float:
    """Return seconds on the GPU: the least of some trials after a warm-up."""
    seconds = []
    for _ in range(1 + TRIALS):
        torch.cuda.synchronize(x.device)
        start = time.perf_counter()
        function(x)
        torch.cuda.synchronize(x.device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
