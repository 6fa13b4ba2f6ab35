"""A half of a network by the CPU's own kernels (see `native`, `bfloat16`, `attention`): arrays of numpy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.machine.memory import in_large_pages
from auravae_cli.model.cpu import attention, bfloat16, native, strip_threads
from auravae_cli.model.cpu.block_norms import Affine, Float, Statistics
from auravae_cli.model.cpu.lazy_maps import Activated, LazyMap, StoredMap
from auravae_cli.model.planning.layer_costs import TILE_ROWS, keeps_points
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS
from auravae_cli.model.spec.config import HEAD_CHANNELS

_ENDS = ("conv_in", "conv_out")
_here = threading.local()


@dataclass(frozen=True)
class Convolution:
    """A convolution that has a kernel; ``weights`` are prepared for it (see `prepare`)."""

    kernels: native.Convolutions
    weights: NDArray[Any]
    bias: Float
    channels_out: int
    unit: int = 1
    are_taps: bool = False

    def same(self, out: Float, source: LazyMap, start: int, residual: Float | None = None) -> None:
        """Convolve rows, keeping the size, into ``out``, plus ``residual``, which can be ``out``."""
        stop = start + out.shape[2]
        self._run(self.kernels.convolve, out, source, (start - 1, stop + 1), start, residual)

    def doubled(self, out: Float, source: LazyMap, start: int) -> None:
        """Convolve rows of ``source`` with every pixel four times.

        The exact shortcut, four 2x2 convolutions of the smaller map, is slower than Winograd's method on
        the larger one; the kernel omits those of its products that are zero there.
        """
        needed = (start - 1) // 2, (start + out.shape[2]) // 2 + 1
        self._run(self.kernels.convolve, out, source, needed, start, doubled=True)

    def halved(self, out: Float, source: LazyMap, start: int) -> None:
        """Convolve rows with stride 2, with zeros beyond the right and the bottom."""
        needed = 2 * start, 2 * (start + out.shape[2]) + 1
        self._run(self.kernels.halve, out, source, needed, start)

    def mixed(self, out: Float, source: LazyMap, start: int, residual: Float | None = None) -> None:
        """Convolve rows with a 1x1 kernel."""
        self._run(self.kernels.mix, out, source, (start, start + out.shape[2]), start, residual)

    def outputs(self, first: int, last: int) -> Convolution:
        """Return the convolution of some outputs: whole groups of those that are computed together."""
        each = self.kernels.channels_out
        weights, bias = self.weights[first // each : last // each], self.bias[first:last]
        return replace(self, weights=weights, bias=bias, channels_out=last - first)

    def _run(
        self,
        function: Callable[[native.KernelCall], int],
        out: Float,
        source: LazyMap,
        needed: tuple[int, int],
        start: int,
        residual: Float | None = None,
        doubled: bool = False,
    ) -> None:
        norm: Affine | None = None
        if isinstance(source, Activated):
            norm, source = source.norm, source.source
        first, last = max(0, needed[0]), min(source.shape[2], needed[1])
        x: Float = source.rows(first, last)
        # Counted in rows of the result.
        first = 2 * first if doubled else first // 2 if function is self.kernels.halve else first
        job = native.KernelCall(
            weights=self.weights.ctypes.data,
            bias=self.bias.ctypes.data,
            x_channel=x.strides[1] // 4,
            residual_channel=0 if residual is None else residual.strides[1] // 4,
            out_channel=out.strides[1] // 4,
            channels=x.shape[1],
            height=x.shape[2],
            width=x.shape[3],
            channels_out=out.shape[1],
            start=start - first,
            rows=out.shape[2],
            doubled=doubled,
            are_taps=self.are_taps,
        )
        for index in range(len(x)):
            job.x, job.out = x[index].ctypes.data, out[index].ctypes.data
            if norm is not None:
                job.scale, job.shift = norm.scale[index].ctypes.data, norm.shift[index].ctypes.data
            if residual is not None:
                job.residual = residual[index].ctypes.data
            if self.are_taps and out.shape[2] >= source.shape[2]:
                self._share(function, job)
            else:
                _call(function, job)

    def _share(self, function: Callable[[native.KernelCall], int], job: native.KernelCall) -> None:
        """Divide the channels of a whole map among all threads: making the weights is most of the work."""
        each, size = self.kernels.channels_out, self.weights[0].nbytes
        number = strip_threads.threads()
        step = each * -(-len(self.weights) // number)

        def compute(first: int) -> None:
            part = native.KernelCall.from_buffer_copy(job)
            part.weights = job.weights + first // each * size
            part.bias = job.bias + 4 * first
            part.out = job.out + 4 * first * job.out_channel
            if job.residual:
                part.residual = job.residual + 4 * first * job.residual_channel
            part.channels_out = min(step, job.channels_out - first)
            _call(function, part)

        tasks = [partial(compute, first) for first in range(0, job.channels_out, step)]
        strip_threads.run_all(tasks, number)


def _call(function: Callable[[native.KernelCall], int], job: native.KernelCall) -> None:
    """Call a kernel with memory that this thread keeps: first touches of new pages cost more than the work."""
    while True:
        memory: Float = getattr(_here, "memory", np.empty(0, np.float32))
        job.memory, job.memory_size = memory.ctypes.data, len(memory)
        missing = function(job)
        if not missing:
            return
        _here.memory = None
        _here.memory = np.zeros(missing, np.float32)


def prepare(
    weights: Float, bias: Float | None, stride: int = 1, products: bool = False
) -> Convolution:
    """Prepare a convolution [O, I, k, k]; ``products``: tied weights, for products of bfloat16."""
    outputs, inputs, size, _ = weights.shape
    offsets = np.zeros(outputs, np.float32) if bias is None else bias
    is_winograd = size == 3 and stride == 1
    unit = TILE_ROWS if is_winograd else 1
    if products:
        few = bfloat16.kernels()
        assert few is not None
        made: NDArray[Any] = bfloat16.transform(weights, stride, few)
        return Convolution(few, made, offsets, outputs, unit)
    kernels = native.kernels()
    assert kernels is not None
    shape = (outputs, inputs, 9) if is_winograd else (outputs, -1, 1)
    made = native.in_groups(weights.reshape(shape), kernels.channels_out)
    are_taps = is_winograd and not keeps_points(inputs, outputs)
    if is_winograd and not are_taps:
        made = kernels.at_points(made)
    return Convolution(kernels, made, offsets, outputs, unit, are_taps)


class NativeHalf:
    """An encoder or a decoder from its tensors, under their names in checkpoints.

    ``products``: the flips fix the weights, and hidden features are convolved with products of bfloat16.
    """

    itemsize = 4

    def __init__(self, state: Mapping[str, Float], products: bool = False) -> None:
        kernels = native.kernels()
        assert kernels is not None
        self._kernels = kernels
        self._attention = (attention.kernel() if products else None) or kernels.attention
        self._norms = {name: tensor for name, tensor in state.items() if "norm" in name}
        self._convolutions: dict[str, Convolution] = {}

        def add(name: str) -> None:
            weights, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
            is_hidden = products and bias is not None and name not in _ENDS
            stride = 2 if "downsample" in name else 1
            self._convolutions[name] = prepare(weights, bias, stride, is_hidden)

        names = [n.removesuffix(".weight") for n, tensor in state.items() if tensor.ndim == 4]
        strip_threads.run_all([partial(add, name) for name in names], strip_threads.threads())

    def empty(self, count: int) -> Float:
        """Return flat memory for ``count`` numbers."""
        made = np.empty(count, np.float32)
        in_large_pages(made.ctypes.data, made.nbytes)
        return made

    def convolution(self, name: str) -> Convolution:
        """Return a convolution."""
        return self._convolutions[name]

    def norm(self, name: str, known: Statistics) -> Affine:
        """Return a group norm with known statistics."""
        return Affine.of(self._norms[f"{name}.weight"], self._norms[f"{name}.bias"], known)

    def measure(self, x: Float, means: Float, spreads: Float) -> None:
        """Measure blocks, as `BlockStatistics` needs it."""
        _, channels, rows, width = x.shape
        sizes = channels, rows * width, BLOCK_ROWS * width
        for each, *found in zip(x, means, spreads, strict=True):
            ends = (place.ctypes.data for place in found)
            step = found[0].strides[0] // 4
            self._kernels.measure(each.ctypes.data, each.strides[0] // 4, *sizes, *ends, step)

    def attention(self, name: str, source: StoredMap, norm: Affine) -> Attention:
        """Return attention over a map with its norm."""
        ends = self._convolutions[f"{name}.qkv"], self._convolutions[f"{name}.proj_out"]
        return Attention(source, norm, *ends, self._attention)

    def run_all(self, tasks: Iterable[Callable[[], None]], threads: int) -> None:
        """Run all tasks, up to ``threads`` at a time."""
        strip_threads.run_all(tasks, threads)


class Attention:
    """Attention over a map, with its norm and residual sum; queries lie where the result will."""

    def __init__(
        self,
        source: StoredMap,
        norm: Affine,
        projection: Convolution,
        last: Convolution,
        kernel: native.Attention,
    ) -> None:
        batch, channels, height, width = source.shape
        self._source, self._norm, self._last, self._kernel = source, norm, last, kernel
        self._queries = projection.outputs(0, channels)
        self._others = projection.outputs(channels, 3 * channels)
        self.memory = source.half.empty(source.values.size)
        self.result = self.memory.reshape(source.shape)
        self._keys_values = source.empty((batch, 2 * channels, height, width))

    def look_up(self, start: int, stop: int) -> None:
        """Make the queries, keys and values of rows."""
        normed = StoredMap(self._norm(self._source.rows(start, stop)), self._source.half)
        self._queries.mixed(self.result[:, :, start:stop], normed, 0)
        self._others.mixed(self._keys_values[:, :, start:stop], normed, 0)

    def attend(self, start: int, stop: int) -> None:
        """Replace the queries of rows by their result."""
        queries = self.result[:, :, start:stop]
        found, channels = np.empty(queries.shape, np.float32), queries.shape[1]
        for image in range(len(queries)):
            both = self._keys_values[image]
            for first in range(0, channels, HEAD_CHANNELS):
                head, beyond = slice(first, first + HEAD_CHANNELS), channels + first
                values = both[beyond : beyond + HEAD_CHANNELS]
                self._kernel.attend(found[image, head], queries[image, head], both[head], values)
        attended = StoredMap(found, self._source.half)
        self._last.mixed(queries, attended, 0, self._source.rows(start, stop))
