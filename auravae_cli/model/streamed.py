"""The encoder and the decoder within a budget of memory: the same result as the plain run.

What is kept in memory, and in which strips all is computed, says a plan (see `stripplan`), made
before the run from the sizes alone. What is not kept is computed again as it is needed (see `rows`),
and what is kept is freed as soon as nothing needs it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.autoencoder import Decoder, Encoder, Level, Middle
from auravae_cli.model.layers import HEAD_CHANNELS, AttentionBlock, ResnetBlock
from auravae_cli.model.rows import (
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
    strips,
)
from auravae_cli.model.stripplan import NOT_KEPT, StripPlan


class Streamer:
    """Runs one picture through the layers over `Rows`, as a plan says."""

    def __init__(self, plan: StripPlan) -> None:
        self._plan = iter(plan.rows)
        # The map so far lies here alone: a name in a caller's frame would hold on to older ones.
        self._x: Rows

    def encode(self, encoder: Encoder, images: Tensor) -> Tensor:
        """[1, 3, H, W] => [1, C, H/f, W/f]."""
        self._x = Convolved(Kept(images), encoder.conv_in)
        for level in encoder.down:
            self._level(cast(Level, level))
        self._middle(encoder.mid)
        return self._out(encoder.norm_out, encoder.conv_out)

    def decode(self, decoder: Decoder, latents: Tensor) -> Tensor:
        """[1, C, h, w] => [1, 3, f*h, f*w]."""
        self._x = Convolved(Kept(latents), decoder.conv_in)
        self._middle(decoder.mid)
        for level in reversed(decoder.up):
            self._level(cast(Level, level))
        return self._out(decoder.norm_out, decoder.conv_out)

    def _level(self, level: Level) -> None:
        """The blocks of one resolution, and the step to the next."""
        for block in level.block:
            self._block(cast(ResnetBlock, block))
        if hasattr(level, "downsample"):
            self._x = Halved(self._x, level.downsample.conv)
            self._keep_if_planned()
        elif hasattr(level, "upsample"):
            self._x = Doubled(self._x, level.upsample.conv)
            self._keep_if_planned()

    def _middle(self, middle: Middle) -> None:
        """Block, attention, block."""
        self._block(middle.block_1)
        self._attention(middle.attn_1)
        self._block(middle.block_2)

    def _block(self, block: ResnetBlock) -> None:
        self._keep_if_planned()
        hidden = self._kept_if_planned(Hidden(self._x, block, next(self._plan)))
        self._x = Residual(self._x, hidden, block, next(self._plan))
        del hidden
        self._keep_if_planned()

    def _out(self, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
        self._x = Activated(self._x, norm, next(self._plan))
        result = keep(Convolved(self._x, conv), next(self._plan)).values
        assert next(self._plan, None) is None  # the plan walked the same layers
        return result

    def _attention(self, block: AttentionBlock) -> None:
        """Keys and values of the whole picture in memory, queries and results in strips."""
        if not isinstance(self._x, Kept):
            self._x = keep(self._x, next(self._plan))
        source = self._x
        norm = Affine(source, block.norm, next(self._plan))
        batch, channels, height, width = source.shape
        heads = channels // HEAD_CHANNELS
        query, key, value = block.qkv.weight.chunk(3)
        at_once = list(strips(height, next(self._plan)))

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
        self._x = Kept(result)

    def _keep_if_planned(self) -> None:
        self._x = self._kept_if_planned(self._x)

    def _kept_if_planned(self, x: Rows) -> Rows:
        """The same map, in memory if the plan says so."""
        if isinstance(x, Kept):
            return x
        at_once = next(self._plan)
        return x if at_once == NOT_KEPT else keep(x, at_once)
