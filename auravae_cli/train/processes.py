"""One process or many: what DistributedDataParallel under ``torchrun`` needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from auravae_cli.model.engine import find_device


@dataclass(frozen=True)
class Processes:
    """This process's rank, and the number of processes."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Return the device of a name; of several GPUs, this process's own. Raises DeviceError."""
        device = find_device(name)
        is_any = device.type == "cuda" and device.index is None
        return torch.device("cuda", self.local_rank) if is_any else device

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over all processes."""
        return DistributedDataParallel(module) if self.world_size > 1 else module

    def average_gradients(self, module: nn.Module) -> None:
        """Average a module's gradients over all processes, if it is not wrapped."""
        if self.world_size > 1:
            for parameter in module.parameters():
                distributed.all_reduce(parameter.grad)
                assert parameter.grad is not None
                parameter.grad /= self.world_size


def is_first_process() -> bool:
    """Return whether this is the first process that ``torchrun`` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; without it, just this one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Processes()
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        processes = Processes(
            distributed.get_rank(), world_size, int(os.environ.get("LOCAL_RANK", "0"))
        )
        if on_gpu:
            torch.cuda.set_device(processes.local_rank)
        yield processes
    finally:
        distributed.destroy_process_group()
