"""The network's layers over `LazyMap`: what each needs of its source for some of its rows."""

from __future__ import annotations

from typing import Any

from auravae_cli.model.cpu.lazy_maps import Activated, Convolution, LazyMap, MapSlice, StoredMap


class Convolved(LazyMap):
    """A 3x3 convolution that keeps the size, with a border of zeros."""

    def __init__(self, source: LazyMap, conv: Convolution) -> None:
        super().__init__(source.like(conv.channels_out), source.half)
        self._source, self._conv, self.unit = source, conv, conv.unit

    def fill(self, out: Any, start: int) -> None:
        self._conv.same(out, self._source, start)


class Halved(LazyMap):
    """The reference's downsampling: a border of zeros on the right and the bottom, then stride 2."""

    def __init__(self, source: LazyMap, conv: Convolution) -> None:
        _, _, height, width = source.shape
        super().__init__(source.like(conv.channels_out, height // 2, width // 2), source.half)
        self._source, self._conv = source, conv

    def fill(self, out: Any, start: int) -> None:
        self._conv.halved(out, self._source, start)


class Doubled(LazyMap):
    """The reference's upsampling: every pixel four times, then a 3x3 convolution."""

    def __init__(self, source: LazyMap, conv: Convolution) -> None:
        _, _, height, width = source.shape
        super().__init__(source.like(conv.channels_out, 2 * height, 2 * width), source.half)
        self._source, self._conv, self.unit = source, conv, conv.unit

    def fill(self, out: Any, start: int) -> None:
        self._conv.doubled(out, self._source, start)


class Residual(LazyMap):
    """A residual block, given ``hidden``, its first half; ``name`` is the block's."""

    def __init__(self, source: LazyMap, hidden: LazyMap, name: str, norms: tuple[Any, Any]) -> None:
        super().__init__(hidden.shape, hidden.half)
        self._source, self._hidden, self._name, self._norms = source, hidden, name, norms
        self._conv = self.half.convolution(f"{name}.conv2")
        self._shortcut: Convolution | None = None
        if source.shape[1] != hidden.shape[1]:
            self._shortcut = self.half.convolution(f"{name}.nin_shortcut")
        self.unit = self._conv.unit

    def fill(self, out: Any, start: int) -> None:
        stop = start + out.shape[2]
        source, hidden = self._source, self._hidden
        if not isinstance(hidden, StoredMap):
            # The input is requested once, for both the sum and the convolutions: doing so twice would
            # double the work with every block that is not kept.
            first, last = hidden.in_units(max(0, start - 1), min(self.shape[2], stop + 1))
            source = MapSlice(source, max(0, first - 1), min(self.shape[2], last + 1))
            hidden = first_half(self._name, source, self._norms[0])
        if self._shortcut is None:
            residual = source.rows(start, stop)
        else:
            residual = out
            self._shortcut.mixed(out, source, start)
        self._conv.same(out, Activated(hidden, self._norms[1]), start, residual)


def first_half(name: str, source: LazyMap, norm: Any) -> LazyMap:
    """Return the input of a residual block's second norm."""
    return Convolved(Activated(source, norm), source.half.convolution(f"{name}.conv1"))
