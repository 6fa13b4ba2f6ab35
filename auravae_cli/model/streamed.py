"""The encoder and the decoder within a budget of memory: the same result as the plain run.

Feature maps are kept while the budget lasts, and otherwise computed again as they are needed (see
`rows`). What is kept is freed as soon as nothing needs it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.config import Architecture
from auravae_cli.model.autoencoder import Decoder, Encoder, Level, Middle
from auravae_cli.model.layers import HEAD_CHANNELS, AttentionBlock, ResnetBlock
from auravae_cli.model.rows import (
    LIVE_STRIPS,
    STATISTICS_ROWS,
    Activated,
    Affine,
    Convolved,
    Doubled,
    Halved,
    Hidden,
    Kept,
    Residual,
    Rows,
    keep,
    strip_rows,
    strips,
)

LIVE_IN_ATTENTION = 6  # feature maps: input, keys, values, result, and strips
HALO_ROWS = 16  # what a chain of convolutions adds to a strip, about


@dataclass(frozen=True)
class Least:
    """The bytes without which a picture cannot be run: at the lowest resolution, and for strips."""

    lowest: int
    strip: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.lowest + self.strip

    @classmethod
    def of(cls, architecture: Architecture, height: int, width: int, itemsize: int) -> Least:
        """What a picture of ``height`` x ``width`` needs at least."""
        cells = height * width // architecture.downsampling_factor**2
        row = max(architecture.widths[:2]) * width * itemsize
        return cls(
            lowest=LIVE_IN_ATTENTION * architecture.widths[-1] * cells * itemsize,
            strip=LIVE_STRIPS * (STATISTICS_ROWS + HALO_ROWS) * row,
        )


class Streamer:
    """Runs layers over `Rows` within ``budget`` bytes, a part of which is for the strips under way."""

    def __init__(self, budget: int, least: Least) -> None:
        self.strip = max(budget // 4, least.strip)
        self._room = budget - self.strip
        self._kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def encode(self, encoder: Encoder, images: Tensor) -> Tensor:
        """[B, 3, H, W] => [B, C, H/f, W/f]."""
        x: Rows = Convolved(Kept(images), encoder.conv_in)
        for level in encoder.down:
            x = self.level(cast(Level, level), x)
        x = self.middle(encoder.mid, x)
        return self.whole(Convolved(self.normed(x, encoder.norm_out), encoder.conv_out))

    def decode(self, decoder: Decoder, latents: Tensor) -> Tensor:
        """[B, C, h, w] => [B, 3, f*h, f*w]."""
        x = self.middle(decoder.mid, Convolved(Kept(latents), decoder.conv_in))
        for level in reversed(decoder.up):
            x = self.level(cast(Level, level), x)
        return self.whole(Convolved(self.normed(x, decoder.norm_out), decoder.conv_out))

    def level(self, level: Level, x: Rows) -> Rows:
        """The blocks of one resolution, and the step to the next."""
        down = getattr(level, "downsample", None)
        # The step down is what the rest is made of: room for it comes before anything above it.
        reserve = 0 if down is None else x.nbytes // x.shape[1] * down.conv.out_channels // 4
        for block in level.block:
            x = self.block(cast(ResnetBlock, block), x, reserve)
        if down is not None:
            return self.affordable(Halved(x, down.conv))
        if hasattr(level, "upsample"):
            return self.affordable(Doubled(x, level.upsample.conv))
        return x

    def middle(self, middle: Middle, x: Rows) -> Rows:
        """Block, attention, block."""
        x = self.attention(middle.attn_1, self.block(middle.block_1, x))
        return self.block(middle.block_2, x)

    def block(self, block: ResnetBlock, x: Rows, reserve: int = 0) -> Rows:
        """A residual block, which keeps what there is room for beside ``reserve`` bytes."""
        x = self.affordable(x, reserve)
        hidden = self.affordable(Hidden(x, block, self.strip), reserve)
        return self.affordable(Residual(x, hidden, block, self.strip), reserve)

    def attention(self, block: AttentionBlock, x: Rows) -> Rows:
        """Keys and values of the whole picture in memory, queries and results in strips."""
        source = Kept(self.whole(x))
        norm = Affine(source, block.norm, self.strip)
        batch, channels, height, width = source.shape
        heads = channels // HEAD_CHANNELS
        query, key, value = block.qkv.weight.chunk(3)
        at_once = list(strips(height, strip_rows(source, self.strip)))

        def project(weight: Tensor, rows: tuple[int, int]) -> Tensor:
            """[B, heads, cells, 64]"""
            projected = F.conv2d(norm(source.rows(*rows)), weight)
            return projected.reshape(batch, heads, HEAD_CHANNELS, -1).transpose(2, 3)

        shape = (batch, heads, height * width, HEAD_CHANNELS)
        keys, values = (source.values.new_empty(shape) for _ in range(2))
        for start, stop in at_once:
            cells = slice(start * width, stop * width)
            keys[:, :, cells] = project(key, (start, stop))
            values[:, :, cells] = project(value, (start, stop))
        result = torch.empty_like(source.values)
        for start, stop in at_once:
            queries = project(query, (start, stop)).contiguous()
            attended = F.scaled_dot_product_attention(queries, keys, values)
            part = attended.transpose(2, 3).reshape(batch, channels, stop - start, width)
            result[:, :, start:stop] = block.proj_out(part).add_(source.rows(start, stop))
        return self._remember(Kept(result))

    def normed(self, x: Rows, norm: nn.GroupNorm) -> Rows:
        return Activated(x, norm, self.strip)

    def affordable(self, x: Rows, reserve: int = 0) -> Rows:
        """The same map, in memory if there is room beside what is kept already and ``reserve``."""
        live = sum(kept.nbytes for kept in self._kept)
        if isinstance(x, Kept) or live + x.nbytes + reserve > self._room:
            return x
        return self._remember(keep(x, self.strip))

    def _remember(self, kept: Kept) -> Kept:
        self._kept.add(kept)
        return kept

    def whole(self, x: Rows) -> Tensor:
        """The map's values."""
        return x.values if isinstance(x, Kept) else keep(x, self.strip).values
