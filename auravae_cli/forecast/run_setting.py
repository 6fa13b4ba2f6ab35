"""How a model would run on this machine, without its weights and, on a CPU, without torch."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from auravae_cli.errors import ComputeError
from auravae_cli.machine.speeds import threads
from auravae_cli.model.cpu import native
from auravae_cli.model.latent_space import LocatedModel, locate
from auravae_cli.model.placement import ITEM_SIZES, Placement, place
from auravae_cli.model.planning.layer_costs import Arithmetic, weights_bytes
from auravae_cli.model.planning.run_plan import (
    Plan,
    Unaffordable,
    affordable_bytes,
    plan_linear,
    plan_run,
    refusal,
)
from auravae_cli.model.spec.config import Architecture, SpaceSpec, canonical_name


@dataclass(frozen=True)
class RunSetting:
    """A model, and where it runs. ``architecture`` is None for the linear model."""

    model: str
    weights_sha256: str
    architecture: Architecture | None
    where: Placement
    arithmetic: Arithmetic
    budget: int | None
    weights: int = 0  # bytes, as they are kept in memory
    repeats: int = 1  # runs per picture, for mirrored ones

    @property
    def downsampling_factor(self) -> int:
        """Pixels per latent cell, along each axis."""
        if self.architecture is None:
            return SpaceSpec.downsampling_factor
        return self.architecture.downsampling_factor

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """Return the plan of as many of ``batch`` pictures as fit together. Raises ComputeError."""
        plan = self._plan(part, batch, height, width)
        return replace(plan, flops=self.repeats * plan.flops)

    def _plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        if self.architecture is None:
            return plan_linear(part, SpaceSpec.channels, (batch, height, width))
        while True:
            size = (batch, height, width)
            found = plan_run(self.architecture, part, size, self.arithmetic, self.budget)
            if not isinstance(found, Unaffordable):
                return found
            if batch == 1:
                raise ComputeError(refusal(found, height, width, self.budget))
            batch -= batch // 2


def find_setting(
    model: str, parts: tuple[str, ...], device: str, dtype: str, memory: int | None
) -> RunSetting:
    """What `load_codec` would load. Raises WeightsError or DeviceError."""
    located = locate(model)
    name, digest = located.name, located.sha256
    if located.is_linear:
        return RunSetting(name, digest, None, Placement(), Arithmetic(), None)
    architecture = _architecture(located, parts)
    where = place(device, dtype, located.is_tied)
    if where.is_on_cpu:
        maps = "float32" if where.has_products else where.dtype
        arithmetic = Arithmetic(
            ITEM_SIZES[maps],
            winograd=where.engine == native.PLAIN and maps == "float32" and may_have_nnpack(),
            threads=threads(),
            native=where.engine == native.NATIVE,
            products=where.has_products,
        )
        weights = sum(weights_bytes(architecture, part, arithmetic) for part in parts)
        budget = affordable_bytes(memory, -weights)
    else:
        import torch

        from auravae_cli.model.engine import DTYPES
        from auravae_cli.model.torch_network import TorchNetwork, arithmetic_of

        gpu, kind = torch.device(where.device), DTYPES[where.dtype]
        arithmetic = arithmetic_of(gpu, kind, where.engine)
        weights = sum(weights_bytes(architecture, part, arithmetic) for part in parts)
        budget = TorchNetwork({}, architecture, gpu, kind, memory).budget()
    return RunSetting(name, digest, architecture, where, arithmetic, budget, weights)


def _architecture(located: LocatedModel, parts: tuple[str, ...]) -> Architecture:
    """From the config, from the names and shapes of a plain safetensors file, else by loading it."""
    config = located.config
    if config is not None and config.architecture is not None:
        return config.architecture
    if not located.is_tied:
        try:
            with safe_open(located.path, framework="np") as file:
                shapes = {
                    canonical_name(name): tuple(file.get_slice(name).get_shape())
                    for name in file.keys()  # noqa: SIM118 - no dict
                }
            found = Architecture.from_shapes(shapes)
            if found is not None:
                return found
        except (OSError, SafetensorError):
            pass
    from auravae_cli.model.checkpoints.halves import load_halves

    return load_halves(located.path, parts)[1]


def may_have_nnpack() -> bool:
    """Return whether NNPACK, if torch includes it, supports this processor."""
    if sys.platform == "win32":
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return True
    return " avx2" in flags
