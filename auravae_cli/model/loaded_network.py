"""A loaded network, which maps arrays or tensors to latents and back: by a CPU's own kernels, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from auravae_cli.errors import ComputeError
from auravae_cli.machine.allocator import return_what_is_freed
from auravae_cli.model.checkpoints.halves import load_halves
from auravae_cli.model.cpu.buffers import Buffers, Supply
from auravae_cli.model.cpu.lazy_maps import Half
from auravae_cli.model.cpu.native import NATIVE
from auravae_cli.model.cpu.native_half import NativeHalf
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.cpu.strip_threads import threads
from auravae_cli.model.halving import attempt, run_halving
from auravae_cli.model.placement import Placement
from auravae_cli.model.planning.layer_costs import Arithmetic, layers
from auravae_cli.model.planning.run_plan import (
    Plan,
    Unaffordable,
    affordable_bytes,
    ample_plan,
    least_memory,
    plan_run,
    refusal,
    sufficient,
)
from auravae_cli.model.planning.strip_plan import StripPlan
from auravae_cli.model.spec.config import Architecture
from auravae_cli.symmetry.arrays import as_numpy, like

TIGHTER = 0.7  # share of the memory of a plan that did not fit, for the next one


class Network:
    """Encoder and decoder, or one of them, on a CPU in strips of rows (see `strip_runner`), within ``memory``
    bytes; None means most of what is free.

    ``has_products``: hidden features are convolved with products of bfloat16.

    Takes numpy arrays and tensors of any device, and returns the same kind, in float32.
    """

    engine = NATIVE

    def __init__(
        self,
        parts: Mapping[str, Any],
        architecture: Architecture,
        memory: int | None = None,
        has_products: bool = False,
    ) -> None:
        self.parts, self.architecture, self.memory = parts, architecture, memory
        self.has_products = has_products
        self._buffers = Supply()
        if memory is not None:
            return_what_is_freed()

    def encode(self, images: Any) -> Any:
        """Encode [B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], not clamped."""
        return self._run("encoder", images)

    def decode(self, latents: Any) -> Any:
        """Decode [B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""
        return self._run("decoder", latents)

    def _run(self, part: str, batch: Any) -> Any:
        given = np.ascontiguousarray(as_numpy(batch))
        return like(self._halving(part, given), batch)

    def _halving(self, part: str, given: Any) -> Any:
        return run_halving(partial(self._forward, part), given, partial(self._tighter, part))

    def _forward(self, part: str, items: Any, budget: int | None = None) -> Any:
        """Run a part within ``budget`` bytes; None means what is free.

        Raises ComputeError or MemoryError, see `_strips`.
        """
        with self._buffers.lent() as buffers:
            strips = self._strips(part, items, budget, buffers)
            assert strips is not None
            return self._in_strips(part, strips, items, buffers)

    def _in_strips(self, part: str, strips: StripPlan, items: Any, buffers: Buffers) -> Any:
        streamer = Streamer(strips, self._half(part), buffers)
        return streamer.run(layers(self.architecture, part), items)

    def _half(self, part: str) -> Half:
        """Return what runs a part in strips."""
        half: Half = self.parts[part]
        return half

    def _tighter(self, part: str, item: Any) -> Any:
        """Run an item that unexpectedly did not fit, in strips, with less and less memory.

        Other programs may have taken free memory, or there is a limit that cannot be queried. Returns None if
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

    def _pixels(self, part: str, items: Any) -> tuple[int, int]:
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

    def _strips(
        self, part: str, items: Any, budget: int | None, buffers: Buffers
    ) -> StripPlan | None:
        """Return how pictures run in strips of maps in ``buffers``; None if they run without strips.

        Raises ComputeError if not even that fits, MemoryError for several that do not fit together.
        """
        height, width = self._pixels(part, items)
        given = self.budget(buffers.nbytes) if budget is None else budget
        plan = self._plan(len(items), height, width, part, given)
        if isinstance(plan, Unaffordable) and len(items) > 1:
            raise MemoryError("more than fits at once")
        if isinstance(plan, Unaffordable):
            raise ComputeError(refusal(plan, height, width, given))
        if plan.strips is None:
            return None
        if plan.tiles > 1:
            return_what_is_freed()
        if buffers.nbytes > plan.strips.room:  # left by another size
            buffers.clear()
        return plan.strips

    def _plan(
        self, batch: int, height: int, width: int, part: str, budget: int | None = None
    ) -> Plan | Unaffordable:
        size = (max(1, batch), height, width)  # an empty batch runs, too
        given = self.budget() if budget is None else budget
        return plan_run(self.architecture, part, size, self.arithmetic(), given)

    def arithmetic(self) -> Arithmetic:
        """Return how this machine computes."""
        return Arithmetic(
            threads=threads(), native=True, winograd=False, products=self.has_products
        )

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
        return affordable_bytes(self.memory, self._buffers.nbytes if held is None else held)


def load_network(
    path: Path, parts: tuple[str, ...], where: Placement, memory: int | None = None
) -> tuple[Network, Architecture]:
    """Load a checkpoint for the kernels of a CPU.

    ``memory`` limits features, in bytes; None means most of the free memory. Raises WeightsError.
    """
    states, architecture = load_halves(path, parts)
    halves = {part: NativeHalf(state, where.has_products) for part, state in states.items()}
    return Network(halves, architecture, memory, where.has_products), architecture
