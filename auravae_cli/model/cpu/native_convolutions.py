"""Convolutions of rows by the CPU's own kernels (see `native`), with the operations around them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from auravae_cli.model.cpu import bfloat16, native
from auravae_cli.model.cpu.block_norms import Affine, lies_in_rows
from auravae_cli.model.cpu.lazy_maps import Activated, LazyMap
from auravae_cli.model.network.layers import Downsample, ResnetBlock, Upsample
from auravae_cli.model.planning.layer_costs import POINTS, native_suits

_here = threading.local()
_ready: WeakKeyDictionary[nn.Conv2d, tuple[tuple[int, ...], Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Convolution:
    """A convolution that has a kernel; ``weights`` are prepared by `native` or `bfloat16`."""

    kernels: native.Convolutions
    weights: Tensor
    bias: Tensor

    def same(
        self, out: Tensor, source: LazyMap, start: int, residual: Tensor | None = None
    ) -> None:
        """Convolve rows, keeping the size, into ``out``, plus ``residual``, which can be ``out``."""
        stop = start + out.shape[2]
        self._run(self.kernels.convolve, out, source, (start - 1, stop + 1), start, residual)

    def doubled(self, out: Tensor, source: LazyMap, start: int) -> None:
        """Convolve rows of ``source`` with every pixel four times."""
        needed = (start - 1) // 2, (start + out.shape[2]) // 2 + 1
        self._run(self.kernels.convolve, out, source, needed, start, doubled=True)

    def halved(self, out: Tensor, source: LazyMap, start: int) -> None:
        """Convolve rows with stride 2, with zeros beyond the right and the bottom."""
        needed = 2 * start, 2 * (start + out.shape[2]) + 1
        self._run(self.kernels.halve, out, source, needed, start)

    def mixed(self, out: Tensor, source: LazyMap, start: int) -> None:
        """Convolve rows with a 1x1 kernel."""
        self._run(self.kernels.mix, out, source, (start, start + out.shape[2]), start)

    def _run(
        self,
        function: Callable[[native.KernelCall], int],
        out: Tensor,
        source: LazyMap,
        needed: tuple[int, int],
        start: int,
        residual: Tensor | None = None,
        doubled: bool = False,
    ) -> None:
        affine: Affine | None = None
        if isinstance(source, Activated):
            affine, source = source.affine, source.source
        first, last = max(0, needed[0]), min(source.shape[2], needed[1])
        x, place = _in_rows(source.rows(first, last)), _in_rows(out)
        residual = None if residual is None else _in_rows(residual)
        # Counted in rows of the result.
        first = 2 * first if doubled else first // 2 if function is self.kernels.halve else first
        job = native.KernelCall(
            weights=self.weights.data_ptr(),
            bias=self.bias.data_ptr(),
            x_channel=x.stride(1),
            residual_channel=0 if residual is None else residual.stride(1),
            out_channel=place.stride(1),
            channels=x.shape[1],
            height=x.shape[2],
            width=x.shape[3],
            channels_out=out.shape[1],
            start=start - first,
            rows=out.shape[2],
            doubled=doubled,
        )
        for index in range(len(x)):
            job.x, job.out = x[index].data_ptr(), place[index].data_ptr()
            if affine is not None:
                job.scale = affine.scale[index].data_ptr()
                job.shift = affine.shift[index].data_ptr()
            if residual is not None:
                job.residual = residual[index].data_ptr()
            _call(function, job)
        if place is not out:
            out.copy_(place)


_tied: WeakKeyDictionary[nn.Conv2d, Convolution] = WeakKeyDictionary()  # those of `use_bfloat16`


def use_bfloat16(network: nn.Module) -> None:
    """Compute the convolutions of hidden features with products of bfloat16 from now on.

    ``network`` is an encoder or a decoder, in float32, whose weights the flips fix.
    """
    kernels = bfloat16.kernels()
    assert kernels is not None
    for module in network.modules():
        if isinstance(module, ResnetBlock | Downsample | Upsample):
            for conv in module.children():
                if isinstance(conv, nn.Conv2d) and conv.bias is not None:
                    weights = conv.weight.detach().numpy()
                    made = bfloat16.transform(weights, conv.stride[0], kernels.channels_out)
                    _tied[conv] = Convolution(kernels, torch.from_numpy(made), conv.bias)


def convolution(conv: nn.Conv2d, result: LazyMap) -> Convolution | None:
    """Return what computes ``result`` with ``conv``; None if no kernel does."""
    if (
        (result.dtype, result.device.type) != (torch.float32, "cpu")
        or conv.bias is None
        or torch.is_grad_enabled()
    ):
        return None
    tied = _tied.get(conv)
    if tied is not None:
        return tied
    if not native_suits(conv.in_channels, conv.out_channels, _points(conv)):
        return None
    kernels = native.kernels()
    return None if kernels is None else Convolution(kernels, _weights(conv, kernels), conv.bias)


def _weights(conv: nn.Conv2d, kernels: native.Kernels) -> Tensor:
    """Return the prepared weights, made on first use, and again after they have changed."""
    given = conv.weight
    version = 0 if given.is_inference() else given._version
    state = (given.data_ptr(), version)
    known = _ready.get(conv)
    if known is None or known[0] != state:
        array = given.detach().numpy()
        if _points(conv) == POINTS:
            made = native.transform(array, kernels.channels_out)
        else:
            made = native.in_groups(array.reshape(len(array), -1, 1), kernels.channels_out)
        known = _ready[conv] = state, torch.from_numpy(made)
    return known[1]


def _points(conv: nn.Conv2d) -> int:
    """Return how many numbers represent a kernel: unchanged, except for 3x3 of stride 1."""
    size = conv.kernel_size[0] * conv.kernel_size[1]
    return POINTS if size == 9 and conv.stride == (1, 1) else size


def _in_rows(x: Tensor) -> Tensor:
    return x if lies_in_rows(x) else x.contiguous()


def _call(function: Callable[[native.KernelCall], int], job: native.KernelCall) -> None:
    """Call a kernel with memory that this thread keeps: first touches of new pages cost more than the work."""
    while True:
        memory: Tensor = getattr(_here, "memory", torch.empty(0))
        job.memory, job.memory_size = memory.data_ptr(), len(memory)
        missing = function(job)
        if not missing:
            return
        _here.memory = None
        _here.memory = torch.zeros(missing)
