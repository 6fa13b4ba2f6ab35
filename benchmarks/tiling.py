"""What a budget of memory costs: time, the peak that was reached, and the difference to no budget.

    python benchmarks/tiling.py [--side 1024] [--budgets none 1G 500M 250M] [--parts decode encode]

Every run is a process of its own. Its peak is counted above what it took with the weights loaded and
a tiny picture run. The first budget is what the others are compared with; ``none`` is the plain run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from auravae_cli import load_codec
from auravae_cli.files.limits import parse_size
from auravae_cli.images.read import from_unit
from auravae_cli.machine.meter import Meter

AMPLE = 1 << 60


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--budgets", nargs="+", default=["none", "1G", "500M", "250M"])
    parser.add_argument("--parts", nargs="+", default=["decode", "encode"])
    parser.add_argument("--model", default="small")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)  # part and budget, in a process
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(
            arguments.model,
            arguments.side,
            arguments.run[0],
            arguments.run[1],
            Path(arguments.output),
        )
        return
    print(
        "part    budget    seconds   TFLOP  planned   peak MiB   largest difference   8-bit steps   equal pixels"
    )
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts:
            first = None
            for budget in arguments.budgets:
                output = Path(folder, f"{part}{budget}.npy")
                command = [sys.executable, __file__, *sys.argv[1:], "--run", part, budget]
                result = subprocess.run(
                    [*command, "--output", str(output)], check=True, capture_output=True, text=True
                )
                facts = json.loads(result.stdout)
                values = np.load(output)
                first = values if first is None else first
                print(
                    f"{part}  {budget:>6}  {facts['seconds']:>9.1f}  {facts['flops'] / 1e12:>6.2f}"
                    f"  {facts['planned'] / 2**20:>7.0f}  {facts['peak'] / 2**20:>9.0f}"
                    f"  {compare(values, first)}",
                    flush=True,
                )


def run(model: str, side: int, part: str, budget: str, output: Path) -> None:
    """One run: its seconds and peak go to standard output, its result to a file."""
    memory = AMPLE if budget == "none" else parse_size(budget)
    codec = load_codec(model, parts=(f"{part}r",), memory=memory)
    random = np.random.default_rng(0)
    shape = (1, 16, side // 8, side // 8) if part == "decode" else (1, 3, side, side)
    values = random.standard_normal(shape, np.float32).clip(-1, 1)  # also pixels
    function = getattr(codec, part)
    few = 2 if part == "decode" else 16  # libraries are loaded, and hardly any memory lies ready
    function(np.ascontiguousarray(values[..., :few, :few]))
    with Meter(interval=0.002) as meter:
        result = function(values)
    np.save(output, result)
    plan = codec.autoencoder.plan(f"{part}r", 1, side // 8 * 8, side // 8 * 8)
    planned, flops = (plan.memory, plan.flops) if plan else (0, 0)
    facts = {
        "seconds": meter.seconds,
        "peak": meter.memory or 0,
        "planned": planned,
        "flops": flops,
    }
    print(json.dumps(facts))


def compare(values: np.ndarray, first: np.ndarray) -> str:
    """The largest difference; of pictures also in 8-bit steps, and the share of equal ones."""
    text = f"{np.abs(values - first).max():>18.1e}"
    if values.shape[1] != 3:
        return text
    a, b = (from_unit(x[0]).astype(int) for x in (values, first))
    return f"{text}   {np.abs(a - b).max():>11}   {(a == b).mean():>12.6f}"


if __name__ == "__main__":
    main()
