"""What layers take beside their input and output: the numbers behind `auravae_cli/model/planning/layer_costs.py`.

    python benchmarks/workspace.py [--plans]

First NNPACK and oneDNN, one call in a process each, against what is counted for them. Then, with
``--plans``, whole runs of several networks against their plans, with and without a budget: no ratio
should be much above 1, and none with a budget.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from auravae_cli.machine.allocator import return_what_is_freed
from auravae_cli.machine.meter import Meter
from auravae_cli.model.network.nnpack import has_nnpack
from auravae_cli.model.network.weights import PARTS
from auravae_cli.model.planning.layer_costs import Arithmetic
from auravae_cli.model.spec.config import Architecture
from auravae_cli.model.torch_network import TorchNetwork

CONVOLUTIONS = [  # kernel, stride, channels in and out, height, width
    (3, 1, 96, 96, 256, 256),
    (3, 1, 192, 96, 256, 256),
    (3, 1, 256, 256, 16, 16),
    (3, 1, 1024, 1024, 16, 16),
    (3, 1, 3, 96, 256, 256),
    (3, 2, 96, 96, 257, 257),
    (3, 2, 1024, 1024, 33, 33),
]
ARCHITECTURES = {
    "small": Architecture(32, (3, 4, 8, 8), (1, 1, 2, 2), 16),
    "ch32": Architecture(32, (1, 2, 4, 4), 2, 16),
    "full": Architecture(256, (1, 2, 4, 4), 2, 16),
}
RUNS = [  # architecture, side, format, budget in MiB
    ("small", 256, "float32", None),
    ("small", 512, "float32", None),
    ("small", 512, "float32", 150),
    ("small", 512, "bfloat16", None),
    ("ch32", 512, "float32", None),
    ("ch32", 512, "float32", 90),
    ("full", 128, "float32", None),
]


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plans", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what to run, in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        case = json.loads(arguments.one)
        print(json.dumps(convolution(*case) if isinstance(case[0], int) else run(*case)))
        return
    print(f"{'convolution':<34} {'counted MiB':>12} {'measured':>9} {'ratio':>6}")
    for conv in CONVOLUTIONS:
        kernel, stride, a, b, height, width = conv
        tell(f"{kernel}x{kernel}/{stride} {a}->{b}, {height} x {width}", conv)
    if not arguments.plans:
        return
    print(f"{'run':<34} {'planned MiB':>12} {'measured':>9} {'ratio':>6}")
    for name, side, dtype, budget in RUNS:
        for part in PARTS:
            limit = f", {budget} MiB" if budget else ""
            tell(f"{name} {part} {side} {dtype}{limit}", (name, part, side, dtype, budget))


def tell(name: str, case: tuple[Any, ...]) -> None:
    """Run a case in a process of its own and print its line."""
    command = [sys.executable, __file__, "--one", json.dumps(case)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    counted, measured = (size / 2**20 for size in json.loads(result.stdout))
    ratio = measured / counted
    print(f"{name:<34} {counted:>12.1f} {measured:>9.1f} {ratio:>6.2f}", flush=True)


def convolution(
    kernel: int, stride: int, a: int, b: int, height: int, width: int
) -> tuple[int, int]:
    """The bytes that a convolution is counted with, and those that it takes, with its result."""
    torch.set_num_threads(1)
    return_what_is_freed()
    arithmetic = Arithmetic(winograd=has_nnpack())
    output = 4 * b * (height // stride) * (width // stride)
    if stride == 1 and arithmetic.is_winograd(a, height, width):
        counted = output + arithmetic.workspace(a, b, height, width)
        call: Callable[[Tensor, Tensor], Tensor] = lambda x, weight: (  # noqa: E731
            torch._nnpack_spatial_convolution(x, weight, None, 1)
        )
    else:
        counted = output + arithmetic.reordered(kernel, a, b, height * width)
        call = lambda x, weight: F.conv2d(  # noqa: E731
            x, weight, None, stride, kernel // 2 if stride == 1 else 0
        )
    with torch.inference_mode():
        call(torch.ones(1, 16, 16, 16), torch.ones(16, 16, kernel, kernel))
        x, weight = torch.ones(1, a, height, width), torch.ones(b, a, kernel, kernel)
        with Meter(interval=0.001) as meter:
            call(x, weight)
    return counted, meter.memory or 0


def run(name: str, part: str, side: int, dtype: str, budget: int | None) -> tuple[int, int]:
    """The bytes that a run of random weights is planned with, and those that it takes."""
    number, architecture = getattr(torch, dtype), ARCHITECTURES[name]
    torch.manual_seed(0)
    module = PARTS[part](architecture).eval().requires_grad_(False).to(number)
    memory = 1 << 60 if budget is None else budget << 20
    network = TorchNetwork({part: module}, architecture, torch.device("cpu"), number, memory)

    def work(side: int) -> Tensor:
        if part == "encoder":
            return network.encode(torch.rand(1, 3, side, side))  # type: ignore[no-any-return]
        cells = side // architecture.downsampling_factor
        return network.decode(torch.rand(1, 16, cells, cells))  # type: ignore[no-any-return]

    work(16)  # libraries are loaded
    plan = network.plan(part, 1, side, side)
    with Meter(interval=0.001) as meter:
        work(side)
    return plan.memory, meter.memory or 0


if __name__ == "__main__":
    main()
