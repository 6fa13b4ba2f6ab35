"""Run the encoder and the decoder within a memory budget, with the same result as a plain run.

A plan (see `strip_plan`), made before the run from the sizes only, decides which maps stay in memory and
how many strips each is computed in. Other maps are recomputed when they are needed (see `lazy_maps`),
and kept maps are freed as soon as nothing needs them.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.cpu.attention import kernel_for
from auravae_cli.model.cpu.block_norms import Affine
from auravae_cli.model.cpu.buffers import Buffers
from auravae_cli.model.cpu.lazy_layers import (
    Convolved,
    Doubled,
    Halved,
    Residual,
    first_half,
)
from auravae_cli.model.cpu.lazy_maps import Activated, LazyMap, StoredMap, keep, statistics, strips
from auravae_cli.model.cpu.strip_threads import crew, run_all
from auravae_cli.model.network.autoencoder import Decoder, Encoder, Level, Middle
from auravae_cli.model.network.layers import HEAD_CHANNELS, NORM_GROUPS, AttentionBlock, ResnetBlock
from auravae_cli.model.planning.strip_plan import Pass, StripPlan, attended_rows


class Streamer:
    """Runs layers over `LazyMap`, following a plan."""

    def __init__(self, plan: StripPlan, buffers: Buffers | None = None) -> None:
        self._passes, self._room = iter(plan.passes), plan.room
        self._buffers = buffers or Buffers()
        self._kept: weakref.WeakSet[StoredMap] = weakref.WeakSet()
        # The only reference to the current map: a name in a caller's frame would keep older ones alive.
        self._x: LazyMap

    def encode(self, encoder: Encoder, images: Tensor) -> Tensor:
        """Encode [B, 3, H, W] => [B, C, H/f, W/f]."""
        with crew():
            self._x = Convolved(StoredMap(images), encoder.conv_in)
            for level in encoder.down:
                self._level(cast(Level, level))
            self._middle(encoder.mid)
            return self._last(encoder.norm_out, encoder.conv_out)

    def decode(self, decoder: Decoder, latents: Tensor) -> Tensor:
        """Decode [B, C, h, w] => [B, 3, f*h, f*w]."""
        with crew():
            self._x = Convolved(StoredMap(latents), decoder.conv_in)
            self._middle(decoder.mid)
            for level in reversed(decoder.up):
                self._level(cast(Level, level))
            return self._last(decoder.norm_out, decoder.conv_out)

    def _level(self, level: Level) -> None:
        """Run the blocks of one resolution, and the step to the next."""
        for block in level.block:
            self._block(cast(ResnetBlock, block))
        if hasattr(level, "downsample"):
            self._step(Halved(self._x, level.downsample.conv))
        elif hasattr(level, "upsample"):
            self._step(Doubled(self._x, level.upsample.conv))

    def _step(self, result: LazyMap) -> None:
        spent = self._x
        self._x = self._affordable(result)
        self._give_back(spent)

    def _middle(self, middle: Middle) -> None:
        """Run block, attention, block."""
        self._block(middle.block_1)
        self._x = self._attention(middle.attn_1)
        self._block(middle.block_2)

    def _block(self, block: ResnetBlock) -> None:
        """Run a residual block, which keeps what there is room for."""
        self._x = self._affordable(self._x)
        first = self._norm(self._x, block.norm1)
        hidden = self._affordable(first_half(block, self._x, first))
        result = Residual(self._x, hidden, block, (first, self._norm(hidden, block.norm2)))
        if not (isinstance(self._x, StoredMap) and isinstance(hidden, StoredMap)):
            self._x = self._affordable(result)
            return
        if result.shape == self._x.shape:  # written over its input
            how = self._next()
            self._x = self._remember(keep(result, how, NORM_GROUPS, values=self._x.values))
        else:
            self._step(result)
        if isinstance(self._x, StoredMap):
            self._buffers.give(hidden.values)

    def _attention(self, block: AttentionBlock) -> StoredMap:
        """Keep keys and values of the whole picture in memory; compute queries and results in strips."""
        if not isinstance(self._x, StoredMap):
            self._x = self._remember(keep(self._x, self._next(), NORM_GROUPS))
        source = self._x
        norm, how = self._norm(source, block.norm), self._next()
        if self._live() + self._buffers.nbytes + 3 * source.values.nbytes > self._room:
            self._buffers.clear()
        batch, channels, height, width = source.shape
        heads = channels // HEAD_CHANNELS
        weights = [w.flatten(1).expand(batch, -1, -1) for w in block.qkv.weight.chunk(3)]
        out = block.proj_out.weight.flatten(1).expand(batch, -1, -1)
        shape = (batch, height * width, heads, HEAD_CHANNELS)
        kernel = kernel_for(block, source.values)
        if kernel:
            shape = (batch, heads, height * width, HEAD_CHANNELS)
            keys, values = torch.empty((2, *shape), dtype=torch.bfloat16)
        else:
            keys, values = (source.values.new_empty(shape).transpose(1, 2) for _ in range(2))
        attended_to = kernel.attend if kernel else F.scaled_dot_product_attention
        result = torch.empty_like(source.values)

        def project(weight: Tensor, rows: tuple[int, int]) -> Tensor:
            """Return [B, heads, cells, 64], with each head's channels contiguous, as the fast kernel needs."""
            cells = norm(source.rows(*rows)).flatten(2).transpose(1, 2)
            return (cells @ weight.transpose(1, 2)).unflatten(2, (heads, -1)).transpose(1, 2)

        def look_up(start: int, stop: int) -> None:
            cells = slice(start * width, stop * width)
            keys[:, :, cells] = project(weights[1], (start, stop))
            values[:, :, cells] = project(weights[2], (start, stop))

        def attend(start: int, stop: int) -> None:
            queries = project(weights[0], (start, stop))
            attended = attended_to(queries, keys, values)
            changed = out @ attended.transpose(1, 2).flatten(2).transpose(1, 2)
            rows = source.rows(start, stop)
            torch.add(changed.view_as(rows), rows, out=result[:, :, start:stop])

        at_once = attended_rows(height, width)
        for step in (look_up, attend):
            run_all([partial(step, *rows) for rows in strips(height, at_once)], how.threads)
        return self._remember(StoredMap(result))

    def _last(self, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
        """Run norm, SiLU, and the convolution that gives the result."""
        activated = Activated(self._x, self._norm(self._x, norm))
        result = keep(Convolved(activated, conv), self._next()).values
        assert next(self._passes, 0) == 0  # the plan walked the same layers
        if isinstance(self._x, StoredMap):
            self._buffers.give(self._x.values)
        return result

    def _norm(self, source: LazyMap, norm: nn.GroupNorm) -> Affine:
        """Return a norm over the whole map, ready to be applied to its rows."""
        known = source.statistics if isinstance(source, StoredMap) else None
        return Affine(norm, known or statistics(source, norm.num_groups, self._next()))

    def _affordable(self, x: LazyMap) -> LazyMap:
        """Return the same map, in memory if the plan says so."""
        if isinstance(x, StoredMap):
            return x
        how = next(self._passes)
        if how is None:
            return x
        values = self._buffers.take(x, self._room - self._live())
        return self._remember(keep(x, how, NORM_GROUPS, values))

    def _give_back(self, spent: LazyMap) -> None:
        """Release the memory of the map that became the current one, if that is in memory itself."""
        if isinstance(self._x, StoredMap) and isinstance(spent, StoredMap) and spent is not self._x:
            self._buffers.give(spent.values)

    def _next(self) -> Pass:
        """Return the next mandatory pass."""
        how = next(self._passes)
        assert how is not None
        return how

    def _live(self) -> int:
        """Return the bytes of the kept maps."""
        storages = (kept.values.untyped_storage() for kept in self._kept)
        return sum({each.data_ptr(): each.nbytes() for each in storages}.values())

    def _remember(self, kept: StoredMap) -> StoredMap:
        self._kept.add(kept)
        return kept
