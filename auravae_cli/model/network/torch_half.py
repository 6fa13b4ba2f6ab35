"""A half of a network by torch alone, in strips: without kernels, or if a GPU's memory is short."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.machine.memory import in_large_pages
from auravae_cli.model.cpu.block_norms import Affine, Float, Statistics
from auravae_cli.model.cpu.lazy_maps import LazyMap, StoredMap
from auravae_cli.model.network import torch_threads
from auravae_cli.model.network.layers import silu
from auravae_cli.model.network.nnpack import convolve_inner
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS
from auravae_cli.model.spec.config import HEAD_CHANNELS


class TorchHalf:
    """An encoder or a decoder from its module."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        first = next(network.parameters())
        self.dtype, self.device, self.itemsize = first.dtype, first.device, first.itemsize

    def empty(self, count: int) -> Tensor:
        """Return flat memory for ``count`` numbers."""
        made = torch.empty(count, dtype=self.dtype, device=self.device)
        if made.device.type == "cpu":
            in_large_pages(made.data_ptr(), made.nbytes)
        return made

    def convolution(self, name: str) -> TorchConvolution:
        """Return a convolution."""
        conv = self._network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        return TorchConvolution(conv)

    def norm(self, name: str, known: Statistics) -> TorchAffine:
        """Return a group norm with known statistics."""
        norm = self._network.get_submodule(name)
        assert isinstance(norm, nn.GroupNorm)
        weight, bias = (x.detach().float().cpu().numpy() for x in (norm.weight, norm.bias))
        return TorchAffine(Affine.of(weight, bias, known), self.device)

    def measure(self, x: Tensor, means: Float, spreads: Float) -> None:
        """Measure blocks, as `BlockStatistics` needs it, in two passes over cached values: no digits are lost."""
        whole = x.shape[2] // BLOCK_ROWS * BLOCK_ROWS
        parts = [(x[:, :, :whole].unflatten(2, (-1, BLOCK_ROWS)), 0)] if whole else []
        if whole < x.shape[2]:
            parts.append((x[:, :, None, whole:], whole // BLOCK_ROWS))
        for blocks, first in parts:
            values = blocks.flatten(3).float()
            mean = values.mean(3, keepdim=True)
            places = slice(first, first + blocks.shape[2])
            spreads[:, :, places] = torch.linalg.vector_norm(values - mean, dim=3).cpu().numpy()
            means[:, :, places] = mean.squeeze(3).cpu().numpy()

    def attention(self, name: str, source: StoredMap, norm: TorchAffine) -> TorchAttention:
        """Return attention over a map with its norm."""
        ends = (f"{name}.{end}.weight" for end in ("qkv", "proj_out"))
        qkv, last = (self._network.get_parameter(end).flatten(1) for end in ends)
        return TorchAttention(source, norm, qkv, last)

    def run_all(self, tasks: Iterable[Callable[[], None]], threads: int) -> None:
        """Run all tasks, up to ``threads`` at a time."""
        torch_threads.run_all(tasks, threads)


class TorchAffine:
    """A group norm with known statistics, on a device."""

    def __init__(self, affine: Affine, device: torch.device) -> None:
        self.scale, self.shift = (
            torch.from_numpy(x)[:, :, None, None].to(device) for x in (affine.scale, affine.shift)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise rows, and round to their own precision, like torch's norm."""
        if x.dtype == torch.float32:
            return torch.mul(x, self.scale).add_(self.shift)
        return torch.addcmul(self.shift, x.float(), self.scale).to(x.dtype)

    def activate(self, out: Tensor, x: Tensor) -> None:
        """Normalise rows, with SiLU, into ``out``."""
        if x.dtype == torch.float32:
            silu(torch.mul(x, self.scale, out=out).add_(self.shift))
        else:
            silu(out.copy_(torch.addcmul(self.shift, x.float(), self.scale)))


class TorchConvolution:
    """A convolution by torch or NNPACK."""

    unit = 1

    def __init__(self, conv: nn.Conv2d) -> None:
        self._conv, self.channels_out = conv, conv.out_channels

    def same(
        self, out: Tensor, source: LazyMap, start: int, residual: Tensor | None = None
    ) -> None:
        """Convolve rows, keeping the size, into ``out``, plus ``residual``, which can be ``out``."""
        changed = convolve_inner(self._conv, source.window(start - 1, start + out.shape[2] + 1))
        if residual is None:
            out.copy_(changed)
        else:
            torch.add(changed, residual, out=out)

    def doubled(self, out: Tensor, source: LazyMap, start: int) -> None:
        """Convolve rows of ``source`` with every pixel four times."""
        first, stop = (start - 1) // 2, start + out.shape[2]
        window = source.window(first, stop // 2 + 1)
        wide = F.interpolate(window, scale_factor=2.0, mode="nearest")
        inner = wide.narrow(2, start - 1 - 2 * first, out.shape[2] + 2)
        out.copy_(convolve_inner(self._conv, inner))

    def halved(self, out: Tensor, source: LazyMap, start: int) -> None:
        """Convolve rows with stride 2, with zeros beyond the right and the bottom."""
        window = source.window(2 * start, 2 * (start + out.shape[2]) + 1, right=1)
        out.copy_(self._conv(window))

    def mixed(self, out: Tensor, source: LazyMap, start: int) -> None:
        """Convolve rows with a 1x1 kernel."""
        out.copy_(self._conv(source.rows(start, start + out.shape[2])))


class TorchAttention:
    """Attention over a map, with its norm and residual sum; ``qkv`` and ``last`` are matrices."""

    def __init__(self, source: StoredMap, norm: TorchAffine, qkv: Tensor, last: Tensor) -> None:
        batch, channels, height, width = source.shape
        self._source, self._norm, self._heads = source, norm, channels // HEAD_CHANNELS
        self._weights = [w.expand(batch, -1, -1) for w in qkv.chunk(3)]
        self._last = last.expand(batch, -1, -1)
        shape = (batch, height * width, self._heads, HEAD_CHANNELS)
        self._keys, self._values = (source.values.new_empty(shape).transpose(1, 2) for _ in "kv")
        self.memory = source.half.empty(source.values.numel())
        self.result = self.memory.view(source.shape)

    def _project(self, weight: Tensor, rows: Tensor) -> Tensor:
        """Return [B, heads, cells, 64], with each head's channels contiguous, as the fast kernel needs."""
        cells = self._norm(rows).flatten(2).transpose(1, 2)
        return (cells @ weight.transpose(1, 2)).unflatten(2, (self._heads, -1)).transpose(1, 2)

    def look_up(self, start: int, stop: int) -> None:
        """Make the keys and values of rows."""
        rows, width = self._source.rows(start, stop), self._source.shape[3]
        cells = slice(start * width, stop * width)
        self._keys[:, :, cells] = self._project(self._weights[1], rows)
        self._values[:, :, cells] = self._project(self._weights[2], rows)

    def attend(self, start: int, stop: int) -> None:
        """Make rows of the result."""
        rows = self._source.rows(start, stop)
        queries = self._project(self._weights[0], rows)
        attended = F.scaled_dot_product_attention(queries, self._keys, self._values)
        changed = self._last @ attended.transpose(1, 2).flatten(2).transpose(1, 2)
        torch.add(changed.view_as(rows), rows, out=self.result[:, :, start:stop])
