"""A network of torch's modules on its device: GPUs, and CPUs without kernels of our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from auravae_cli.model.cpu.buffers import Buffers
from auravae_cli.model.cpu.lazy_maps import Half
from auravae_cli.model.cpu.native import NATIVE, PLAIN
from auravae_cli.model.cpu.native_half import NativeHalf
from auravae_cli.model.engine import CHANNELS_LAST, DTYPES, engine_for, prepared_halves
from auravae_cli.model.gpu import channels_last
from auravae_cli.model.loaded_network import Network
from auravae_cli.model.network.nnpack import has_nnpack
from auravae_cli.model.network.torch_half import TorchHalf
from auravae_cli.model.network.torch_threads import crew, torch_threads
from auravae_cli.model.network.weights import load_networks
from auravae_cli.model.placement import Placement
from auravae_cli.model.planning.layer_costs import Arithmetic
from auravae_cli.model.planning.run_plan import SHARE_OF_FREE
from auravae_cli.model.planning.strip_plan import StripPlan
from auravae_cli.model.spec.config import Architecture


class TorchNetwork(Network):
    """Encoder and decoder, or one of them, in a number format on a device.

    On a CPU, and elsewhere if a picture's features do not fit into ``memory`` bytes, it runs in strips of
    rows, with the same result up to rounding: in float32 on a CPU by our own kernels, where there are
    any. Otherwise it runs through ``prepared``, if a GPU has them (see `engine`), or through the modules.
    """

    def __init__(
        self,
        parts: dict[str, nn.Module],
        architecture: Architecture,
        device: torch.device,
        dtype: torch.dtype,
        memory: int | None = None,
        prepared: Mapping[str, channels_last.Prepared] | None = None,
    ) -> None:
        super().__init__(parts, architecture, memory)
        self.device, self.dtype, self.prepared = device, dtype, prepared or {}
        is_on_cpu = device.type == "cpu"
        self.engine = engine_for(device, dtype) if is_on_cpu else PLAIN
        if self.prepared:
            self.engine = CHANNELS_LAST
        self._native: dict[str, tuple[object, NativeHalf]] = {}

    def _run(self, part: str, batch: Any) -> Any:
        is_array = isinstance(batch, np.ndarray)
        # A copy, since torch supports neither flipped views nor read-only maps of an array.
        given = torch.from_numpy(batch.copy()) if is_array else batch
        with torch.inference_mode():
            result = self._halving(part, given)
        return result.cpu().numpy() if is_array else result.to(given.device)

    def _forward(self, part: str, items: Any, budget: int | None = None) -> Any:
        given = items.to(self.device, self.dtype)
        with self._buffers.lent() as buffers:
            strips = self._strips(part, items, budget, buffers)
            if strips is None:
                return self.prepared.get(part, self.parts[part])(given).float()
            return self._in_strips(part, strips, given, buffers).float()

    def _in_strips(self, part: str, strips: StripPlan, items: Any, buffers: Buffers) -> Any:
        if self.engine != NATIVE:
            with crew():
                return super()._in_strips(part, strips, items, buffers)
        given = np.ascontiguousarray(items.numpy())
        return torch.from_numpy(super()._in_strips(part, strips, given, buffers))

    def _half(self, part: str) -> Half:
        """Return what runs a part in strips: for our own kernels made again after weights have changed."""
        module = self.parts[part]
        if self.engine != NATIVE:
            return TorchHalf(module)
        tensors = module.state_dict()
        state = [(x.data_ptr(), 0 if x.is_inference() else x._version) for x in tensors.values()]
        known = self._native.get(part)
        if known is None or known[0] != state:
            arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
            known = self._native[part] = state, NativeHalf(arrays)
        return known[1]

    def arithmetic(self) -> Arithmetic:
        """Return how this device computes in this format."""
        return arithmetic_of(self.device, self.dtype, self.engine)

    def budget(self, held: int | None = None) -> int | None:
        """Return the bytes that features of a run may take; None if the machine does not tell.

        ``held`` bytes are already reserved for it; None means those reserved here.
        """
        if self.memory is None and self.device.type == "cuda":
            # Memory that torch holds but does not use is free for it, too.
            held = torch.cuda.memory_reserved(self.device)
            held -= torch.cuda.memory_allocated(self.device)
            return int((torch.cuda.mem_get_info(self.device)[0] + held) * SHARE_OF_FREE)
        if self.memory is None and self.device.type != "cpu":
            return None
        return super().budget(held)


def arithmetic_of(device: torch.device, dtype: torch.dtype, engine: str) -> Arithmetic:
    """Return how a device computes in a format, for networks that run through ``engine``."""
    if engine == CHANNELS_LAST:
        live = channels_last.LIVE_FEATURES
        return Arithmetic(dtype.itemsize, winograd=False, is_plain=True, live_features=live)
    if device.type != "cpu":
        return Arithmetic(dtype.itemsize, winograd=False, is_plain=True)
    is_plain = engine == PLAIN and dtype == torch.float32
    return Arithmetic(
        dtype.itemsize,
        winograd=is_plain and has_nnpack(),
        threads=torch_threads(),
        native=engine == NATIVE,
    )


def load_torch_network(
    path: Path, parts: tuple[str, ...], where: Placement, memory: int | None = None
) -> tuple[TorchNetwork, Architecture]:
    """Load a checkpoint as `loaded_network.load_network` does, for a GPU, or to be run by torch."""
    device, dtype = torch.device(where.device), DTYPES[where.dtype]
    prepares = where.engine == CHANNELS_LAST
    modules, architecture = load_networks(path, parts, device, torch.float32 if prepares else dtype)
    factor = architecture.downsampling_factor
    prepared = prepared_halves(modules, dtype, factor) if prepares else None
    return TorchNetwork(modules, architecture, device, dtype, memory, prepared), architecture
