"""The encoder and the decoder within a budget of memory: the same result as the plain run.

Feature maps are kept while the budget lasts, and otherwise computed again as they are needed (see
`rows`). What is kept is freed as soon as nothing needs it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.config import Architecture
from auravae_cli.model.autoencoder import Decoder, Encoder, Level, Middle
from auravae_cli.model.buffers import Buffers
from auravae_cli.model.crew import crew, num_threads, run_all
from auravae_cli.model.layers import HEAD_CHANNELS, NORM_GROUPS, AttentionBlock, ResnetBlock
from auravae_cli.model.norms import BLOCK_ROWS
from auravae_cli.model.rowlayers import (
    Activated,
    Convolved,
    Doubled,
    Halved,
    Residual,
    first_half,
    known_norm,
)
from auravae_cli.model.rows import LIVE_STRIPS, Kept, Rows, keep, strip_rows, strips

NO_LIMIT = 1 << 62  # bytes
LIVE_IN_ATTENTION = 6  # feature maps: input, keys, values, result, and strips
STRIPS_ROOM = 1 << 26  # bytes that strips under way may take; more gains nothing
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
            strip=LIVE_STRIPS * min(BLOCK_ROWS + HALO_ROWS, height) * row,
        )


class Streamer:
    """Runs layers over `Rows` within ``budget`` bytes, a part of which is for the strips under way.

    Without a budget every map is kept.
    """

    def __init__(
        self,
        budget: int = NO_LIMIT,
        least: Least | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        self._buffers = buffers or Buffers()
        self.strip = max(min(budget // 4, STRIPS_ROOM), least.strip if least else 0)
        self._room = budget - self.strip
        self._kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def encode(self, encoder: Encoder, images: Tensor) -> Tensor:
        """[B, 3, H, W] => [B, C, H/f, W/f]."""
        with crew():
            return self._encode(encoder, images)

    def _encode(self, encoder: Encoder, images: Tensor) -> Tensor:
        x: Rows = Convolved(Kept(images), encoder.conv_in)
        for level in encoder.down:
            x = self.level(cast(Level, level), x)
        x = self.middle(encoder.mid, x)
        return self.last(x, encoder.norm_out, encoder.conv_out)

    def decode(self, decoder: Decoder, latents: Tensor) -> Tensor:
        """[B, C, h, w] => [B, 3, f*h, f*w]."""
        with crew():
            return self._decode(decoder, latents)

    def _decode(self, decoder: Decoder, latents: Tensor) -> Tensor:
        x = self.middle(decoder.mid, Convolved(Kept(latents), decoder.conv_in))
        for level in reversed(decoder.up):
            x = self.level(cast(Level, level), x)
        return self.last(x, decoder.norm_out, decoder.conv_out)

    def level(self, level: Level, x: Rows) -> Rows:
        """The blocks of one resolution, and the step to the next."""
        down = getattr(level, "downsample", None)
        # The step down is what the rest is made of: room for it comes before anything above it.
        reserve = 0 if down is None else x.nbytes // x.shape[1] * down.conv.out_channels // 4
        for block in level.block:
            x = self.block(cast(ResnetBlock, block), x, reserve)
        if down is not None:
            return self.affordable(Halved(x, down.conv), spent=x)
        if hasattr(level, "upsample"):
            return self.affordable(Doubled(x, level.upsample.conv), spent=x)
        return x

    def middle(self, middle: Middle, x: Rows) -> Rows:
        """Block, attention, block."""
        x = self.attention(middle.attn_1, self.block(middle.block_1, x))
        return self.block(middle.block_2, x)

    def block(self, block: ResnetBlock, x: Rows, reserve: int = 0) -> Rows:
        """A residual block, which keeps what there is room for beside ``reserve`` bytes."""
        x = self.affordable(x, reserve)
        norm = known_norm(x, block.norm1, self.strip)
        hidden = self.affordable(first_half(block, x, norm), reserve)
        result = Residual(x, hidden, block, norm, self.strip)
        if not (isinstance(x, Kept) and isinstance(hidden, Kept)):
            return self.affordable(result, reserve)
        if result.shape != x.shape:
            result_kept = self.affordable(result, reserve, spent=x)
        else:
            result_kept = self._remember(keep(result, self.strip, NORM_GROUPS, values=x.values))
        if isinstance(result_kept, Kept):
            self._buffers.give(hidden.values)
        return result_kept

    def attention(self, block: AttentionBlock, x: Rows) -> Rows:
        """Keys and values of the whole picture in memory, queries and results in strips."""
        source = x if isinstance(x, Kept) else self._remember(keep(x, self.strip, NORM_GROUPS))
        norm = known_norm(source, block.norm, self.strip)
        batch, channels, height, width = source.shape
        heads = channels // HEAD_CHANNELS
        weights = [w.flatten(1).expand(batch, -1, -1) for w in block.qkv.weight.chunk(3)]
        out = block.proj_out.weight.flatten(1).expand(batch, -1, -1)
        shape = (batch, height * width, heads, HEAD_CHANNELS)
        keys, values = (source.values.new_empty(shape).transpose(1, 2) for _ in range(2))
        result = torch.empty_like(source.values)

        def project(weight: Tensor, rows: tuple[int, int]) -> Tensor:
            """[B, heads, cells, 64], each head's channels side by side, as the fast kernel needs."""
            cells = norm(source.rows(*rows)).flatten(2).transpose(1, 2)
            return (cells @ weight.transpose(1, 2)).unflatten(2, (heads, -1)).transpose(1, 2)

        def look_up(start: int, stop: int) -> None:
            cells = slice(start * width, stop * width)
            keys[:, :, cells] = project(weights[1], (start, stop))
            values[:, :, cells] = project(weights[2], (start, stop))

        def attend(start: int, stop: int) -> None:
            queries = project(weights[0], (start, stop))
            attended = F.scaled_dot_product_attention(queries, keys, values)
            changed = out @ attended.transpose(1, 2).flatten(2).transpose(1, 2)
            rows = source.rows(start, stop)
            torch.add(changed.view_as(rows), rows, out=result[:, :, start:stop])

        threads = num_threads(source.device)
        at_once = min(strip_rows(source, self.strip // threads), -(-height // threads))
        for step in (look_up, attend):
            run_all([partial(step, *rows) for rows in strips(height, at_once)], threads)
        return self._remember(Kept(result))

    def last(self, x: Rows, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
        """Norm, SiLU, and the convolution that gives the result."""
        activated = Activated(x, known_norm(x, norm, self.strip))
        result = keep(Convolved(activated, conv), self.strip).values
        if isinstance(x, Kept):
            self._buffers.give(x.values)
        return result

    def affordable(self, x: Rows, reserve: int = 0, spent: Rows | None = None) -> Rows:
        """The same map, in memory if there is room beside what is kept already and ``reserve``.

        ``spent`` is what only ``x`` needs, no longer so if that is in memory.
        """
        live = sum(kept.values.untyped_storage().nbytes() for kept in self._kept)
        if isinstance(x, Kept) or live + x.nbytes + reserve > self._room:
            return x
        values = self._buffers.take(x, self._room - live)
        kept = self._remember(keep(x, self.strip, NORM_GROUPS, values))
        if isinstance(spent, Kept):
            self._buffers.give(spent.values)
        return kept

    def _remember(self, kept: Kept) -> Kept:
        self._kept.add(kept)
        return kept
