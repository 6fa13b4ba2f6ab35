"""Run the encoder and the decoder within a memory budget, with the same result as a plain run.

A plan (see `strip_plan`), made before the run from the sizes only, decides which maps stay in memory and
how many strips each is computed in. Other maps are recomputed when they are needed (see `lazy_maps`),
and kept maps are freed as soon as nothing needs them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

from auravae_cli.model.cpu.buffers import Buffers
from auravae_cli.model.cpu.lazy_layers import Convolved, Doubled, Halved, Residual, first_half
from auravae_cli.model.cpu.lazy_maps import (
    Activated,
    Half,
    LazyMap,
    StoredMap,
    keep,
    statistics,
    strips,
)
from auravae_cli.model.planning.layer_costs import ATTENTION, BLOCK, CONV, DOWN, UP, Layer
from auravae_cli.model.planning.strip_plan import Pass, StripPlan, attended_rows


class Streamer:
    """Runs a half's layers over `LazyMap`, following a plan."""

    def __init__(self, plan: StripPlan, half: Half, buffers: Buffers | None = None) -> None:
        self._passes, self._room, self._half = iter(plan.passes), plan.room, half
        self._buffers = buffers or Buffers()
        self._kept: weakref.WeakSet[StoredMap] = weakref.WeakSet()
        # The only reference to the current map: a name in a caller's frame would keep older ones alive.
        self._x: LazyMap

    def run(self, chain: Iterable[Layer], given: Any) -> Any:
        """Run all layers: an encoder's [B, 3, H, W] => [B, C, H/f, W/f], a decoder's the other way."""
        self._x = StoredMap(given, self._half)
        for layer in chain:
            self._layer(layer)
        assert next(self._passes, 0) == 0  # the plan walked the same layers
        assert isinstance(self._x, StoredMap)
        return self._x.values

    def _layer(self, layer: Layer) -> None:
        if layer.kind == BLOCK:
            self._block(layer.name)
        elif layer.kind == ATTENTION:
            self._attention(layer.name)
        elif layer.kind == CONV:
            self._x = Convolved(self._x, self._half.convolution(layer.name))
        elif layer.kind in (DOWN, UP):
            step = Halved if layer.kind == DOWN else Doubled
            self._step(step(self._x, self._half.convolution(layer.name)))
        else:
            self._last()

    def _step(self, result: LazyMap) -> None:
        spent = self._x
        self._x = self._affordable(result)
        self._give_back(spent)

    def _block(self, name: str) -> None:
        """Run a residual block, which keeps what there is room for."""
        self._x = self._affordable(self._x)
        first = self._norm(self._x, f"{name}.norm1")
        hidden = self._affordable(first_half(name, self._x, first))
        result = Residual(self._x, hidden, name, (first, self._norm(hidden, f"{name}.norm2")))
        if not (isinstance(self._x, StoredMap) and isinstance(hidden, StoredMap)):
            self._x = self._affordable(result)
            return
        if result.shape == self._x.shape:  # written over its input
            self._x = self._remember(keep(result, self._next(), self._x.memory))
        else:
            self._step(result)
        if isinstance(self._x, StoredMap):
            self._buffers.give(hidden)

    def _attention(self, name: str) -> None:
        """Keep keys and values of the whole picture in memory; compute queries and results in strips."""
        if not isinstance(self._x, StoredMap):
            self._x = self._remember(keep(self._x, self._next()))
        source = self._x
        norm, how = self._norm(source, f"{name}.norm"), self._next()
        self._buffers.trim(self._room - self._live() - 3 * source.values.nbytes)
        attention = self._half.attention(name, source, norm)
        height, width = source.shape[2:]
        places = list(strips(height, attended_rows(height, width)))
        for step in (attention.look_up, attention.attend):
            self._half.run_all([partial(step, *rows) for rows in places], how.threads)
        self._x = self._remember(StoredMap(attention.result, self._half, attention.memory))

    def _last(self) -> None:
        """Run norm, SiLU, and the convolution that gives the result."""
        activated = Activated(self._x, self._norm(self._x, "norm_out"))
        conv = self._half.convolution("conv_out")
        result = keep(Convolved(activated, conv), self._next(), is_measured=False)
        if isinstance(self._x, StoredMap):
            self._buffers.give(self._x)
        self._x = result

    def _norm(self, source: LazyMap, name: str) -> Any:
        """Return a norm over the whole map, ready to be applied to its rows."""
        known = source.statistics if isinstance(source, StoredMap) else None
        return self._half.norm(name, known or statistics(source, self._next()))

    def _affordable(self, x: LazyMap) -> LazyMap:
        """Return the same map, in memory if the plan says so."""
        if isinstance(x, StoredMap):
            return x
        how = next(self._passes)
        if how is None:
            return x
        memory = self._buffers.take(x, self._room - self._live())
        return self._remember(keep(x, how, memory))

    def _give_back(self, spent: LazyMap) -> None:
        """Release the memory of the map that became the current one, if that is in memory itself."""
        if isinstance(self._x, StoredMap) and isinstance(spent, StoredMap) and spent is not self._x:
            self._buffers.give(spent)

    def _next(self) -> Pass:
        """Return the next mandatory pass."""
        how = next(self._passes)
        assert how is not None
        return how

    def _live(self) -> int:
        """Return the bytes of the kept maps."""
        return sum({id(kept.memory): kept.memory.nbytes for kept in self._kept}.values())

    def _remember(self, kept: StoredMap) -> StoredMap:
        self._kept.add(kept)
        return kept
