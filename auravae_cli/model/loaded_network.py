"""A loaded network on its device, which maps arrays or tensors to latents and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from auravae_cli.errors import ComputeError
from auravae_cli.machine.memory import return_what_is_freed
from auravae_cli.model.cpu.buffers import Buffers, Supply
from auravae_cli.model.cpu.native import NATIVE, PLAIN
from auravae_cli.model.cpu.nnpack import has_nnpack
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.cpu.strip_threads import torch_threads
from auravae_cli.model.engine import CHANNELS_LAST, DTYPES, engine_for, runners, use_bfloat16
from auravae_cli.model.gpu import channels_last
from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.network.weights import load_networks
from auravae_cli.model.placement import Placement
from auravae_cli.model.planning.layer_costs import Arithmetic
from auravae_cli.model.planning.run_plan import (
    ADVICE,
    SHARE_OF_FREE,
    Plan,
    Unaffordable,
    affordable_bytes,
    ample_plan,
    least_memory,
    plan_run,
    refusal,
    sufficient,
)
from auravae_cli.model.spec.config import Architecture

TIGHTER = 0.7  # share of the memory of a plan that did not fit, for the next one


class Network:
    """Encoder and decoder, or one of them, in a number format on a device.

    On a CPU, and elsewhere if a picture's features do not fit into ``memory`` bytes, it runs in strips of
    rows (see `streamed`), with the same result up to rounding. Otherwise it runs through ``runners``, if a
    GPU has them (see `engine`), or through the modules.

    ``products``: on a CPU, the modules are in float32, and their convolutions have been prepared for
    products of bfloat16, which is ``dtype`` (see `engine.use_bfloat16`).

    Takes numpy arrays and tensors of any device, and returns the same kind, in float32.
    """

    def __init__(
        self,
        parts: dict[str, nn.Module],
        architecture: Architecture,
        device: torch.device,
        dtype: torch.dtype,
        memory: int | None = None,
        runners: Mapping[str, channels_last.Runner] | None = None,
        products: bool = False,
    ) -> None:
        self.parts, self.architecture, self.device, self.dtype = parts, architecture, device, dtype
        self.memory = memory
        self._buffers = Supply()
        self.runners = runners or {}
        self.has_products = products
        self.engine = CHANNELS_LAST if self.runners else NATIVE if products else PLAIN
        if device.type == "cpu" and self.engine == PLAIN:
            self.engine = engine_for(device, dtype)
        if memory is not None:
            return_what_is_freed()

    def encode(self, images: Any) -> Any:
        """Encode [B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], not clamped."""
        return self._run("encoder", images)

    def decode(self, latents: Any) -> Any:
        """Decode [B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""
        return self._run("decoder", latents)

    def _run(self, part: str, batch: Any) -> Any:
        is_array = isinstance(batch, np.ndarray)
        # A copy, since torch supports neither flipped views nor read-only maps of an array.
        given = torch.from_numpy(batch.copy()) if is_array else batch
        with torch.inference_mode():
            result = run_halving(partial(self._forward, part), given, partial(self._tighter, part))
        return result.cpu().numpy() if is_array else result.to(given.device)

    def _forward(self, part: str, items: Tensor, budget: int | None = None) -> Tensor:
        """Run a part within ``budget`` bytes; None means what is free.

        Raises ComputeError or OutOfMemoryError, see `_streamer`.
        """
        dtype = torch.float32 if self.has_products else self.dtype
        network, given = self.parts[part], items.to(self.device, dtype)
        with self._buffers.lent() as buffers:
            size = (len(items), *self._pixels(part, items))
            streamer = self._streamer(part, size, budget, buffers)
            if streamer is None:
                result: Tensor = self.runners.get(part, network)(given)
            elif part == "encoder":
                result = streamer.encode(cast(Encoder, network), given)
            else:
                result = streamer.decode(cast(Decoder, network), given)
        return result.float()

    def _tighter(self, part: str, item: Tensor) -> Tensor | None:
        """Run an item that unexpectedly did not fit, in strips, with less and less memory.

        Other programs may have taken free memory, or there is a limit that no number tells. Returns None if
        not even the shortest strips fit.
        """
        for budget in self._budgets(part, *self._pixels(part, item)):
            self._buffers.clear()
            result = attempt(partial(self._forward, part, budget=budget), item)
            if result is not None:
                return result
        return None

    def _budgets(self, part: str, height: int, width: int) -> Iterator[int]:
        """Yield less and less memory with which one picture still runs, below what its plan takes."""
        plan = self._plan(1, height, width, part)
        budget = plan.memory if isinstance(plan, Plan) else 0
        while True:
            last, budget = budget, int(TIGHTER * budget)
            plan = self._plan(1, height, width, part, budget)
            if isinstance(plan, Unaffordable):
                budget = sufficient(plan.least)
                if budget >= last:
                    return
            yield budget

    def _pixels(self, part: str, items: Tensor) -> tuple[int, int]:
        """Return the height and the width of the pictures in pixels."""
        factor = 1 if part == "encoder" else self.architecture.downsampling_factor
        return factor * items.shape[-2], factor * items.shape[-1]

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """Return how pictures of ``height`` x ``width`` pixels run, as many together as fit.

        Raises ComputeError if not even one of them fits.
        """
        while True:
            plan = self._plan(batch, height, width, part)
            if isinstance(plan, Plan):
                return plan
            if batch == 1:
                raise ComputeError(refusal(plan, height, width, self.budget()))
            batch -= batch // 2

    def least_memory(self, height: int, width: int) -> int:
        """Return the smallest ``memory`` with which both halves run a picture of this size."""
        found = [
            plan_run(self.architecture, part, (1, height, width), self.arithmetic(), 0)
            for part in ("encoder", "decoder")
        ]
        least = max(plan.least if isinstance(plan, Unaffordable) else plan.memory for plan in found)
        return sufficient(least)

    def _streamer(
        self, part: str, size: tuple[int, int, int], budget: int | None, buffers: Buffers
    ) -> Streamer | None:
        """Return what runs pictures of ``size`` (batch, height, width) in strips of maps in ``buffers``;
        None if they run without strips.

        Raises ComputeError if not even that fits, OutOfMemoryError for several that do not fit together.
        """
        batch, height, width = size
        given = self.budget(buffers.nbytes) if budget is None else budget
        plan = self._plan(batch, height, width, part, given)
        if isinstance(plan, Unaffordable) and batch > 1:
            raise torch.OutOfMemoryError("more than fits at once")
        if isinstance(plan, Unaffordable):
            raise ComputeError(refusal(plan, height, width, given))
        if plan.strips is None:
            return None
        if plan.tiles > 1:
            return_what_is_freed()
        if buffers.nbytes > plan.strips.room:  # left by another size
            buffers.clear()
        return Streamer(plan.strips, buffers)

    def _plan(
        self, batch: int, height: int, width: int, part: str, budget: int | None = None
    ) -> Plan | Unaffordable:
        size = (max(1, batch), height, width)  # an empty batch runs, too
        given = self.budget() if budget is None else budget
        return plan_run(self.architecture, part, size, self.arithmetic(), given)

    def arithmetic(self) -> Arithmetic:
        """Return how this device computes in this format."""
        return arithmetic_of(self.device, self.dtype, self.engine)

    def needs(self, height: int, width: int) -> int:
        """Return the bytes of a picture with ample memory."""
        size, how = (1, height, width), self.arithmetic()
        return max(ample_plan(self.architecture, p, size, how).memory for p in self.parts)

    def least(self, height: int, width: int) -> int:
        """Return about the fewest bytes in which a picture runs in strips."""
        size, how = (1, height, width), self.arithmetic()
        return max(least_memory(self.architecture, p, size, how) for p in self.parts)

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
        return affordable_bytes(self.memory, self._buffers.nbytes if held is None else held)


def arithmetic_of(device: torch.device, dtype: torch.dtype, engine: str) -> Arithmetic:
    """Return how a device computes in a format, for networks that run through ``engine``."""
    if engine == CHANNELS_LAST:
        live = channels_last.LIVE_FEATURES
        return Arithmetic(dtype.itemsize, winograd=False, is_plain=True, live_features=live)
    if device.type != "cpu":
        return Arithmetic(dtype.itemsize, winograd=False, is_plain=True)
    maps = torch.float32 if engine == NATIVE else dtype
    return Arithmetic(
        maps.itemsize,
        winograd=maps == torch.float32 and has_nnpack(),
        threads=torch_threads(),
        native=engine == NATIVE,
        products=engine == NATIVE and dtype == torch.bfloat16,
    )


def run_halving(
    function: Callable[[Tensor], Tensor],
    batch: Tensor,
    last_resort: Callable[[Tensor], Tensor | None] = lambda item: None,
) -> Tensor:
    """Return ``function(batch)``; if memory runs out, split the batch in halves, down to single items.

    ``last_resort`` runs a single item that does not fit. Raises ComputeError if that returns None.
    """
    result = attempt(function, batch)
    if result is None and len(batch) == 1:
        result = last_resort(batch)
    if result is not None:
        return result
    if len(batch) == 1:
        size = " x ".join(map(str, batch.shape[-2:]))
        raise ComputeError(f"not enough memory on the device for one item of {size}; {ADVICE}")
    half = len(batch) // 2
    parts = (run_halving(function, part, last_resort) for part in (batch[:half], batch[half:]))
    return torch.cat(list(parts))


def attempt(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor | None:
    """Return ``function(batch)``; None if memory ran out, after releasing what the failed run took."""
    try:
        return function(batch)
    except (RuntimeError, MemoryError) as error:
        told = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not told and "can't allocate memory" not in str(error):
            raise
    if torch.cuda.is_available():  # outside the handler: the error keeps the run's tensors
        torch.cuda.empty_cache()
    return None


def load_network(
    path: Path, parts: tuple[str, ...], where: Placement, memory: int | None = None
) -> tuple[Network, Architecture]:
    """Load a checkpoint; ``memory`` limits features, in bytes; None means most of the free memory.

    Raises WeightsError.
    """
    device, dtype = torch.device(where.device), DTYPES[where.dtype]
    prepares, products = where.kernels == CHANNELS_LAST, where.has_products
    stored = torch.float32 if prepares or products else dtype
    networks, architecture = load_networks(path, parts, device, stored)
    if products:
        for network in networks.values():
            use_bfloat16(network)
    factor = architecture.downsampling_factor
    prepared = runners(networks, dtype, factor) if prepares else None
    network_of = partial(Network, networks, architecture, device, dtype, memory)
    return network_of(prepared, products), architecture
