"""A model with tied weights on a CPU in float32 and in bfloat16, beside another checkout of this project (commit c2c1eb0, say).

    git worktree add /tmp/base c2c1eb0
    python benchmarks/bfloat16.py [--base /tmp/base] [--model small] [--sides 256 512 1024] [--repeats 7] [--json FILE]

Each contender is a process of its own. They take turns, so that a noisy machine disturbs all alike: read the
ratios. In each turn a contender runs twice, and the second time counts. ``error`` is the distance from
this checkout's float32, of the result's size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parents[1]
PARTS = ("decode", "encode")
WORKER = """
import sys, time
import numpy as np
from auravae_cli import load_codec

codec = load_codec(sys.argv[2], device="cpu", dtype=sys.argv[1])
for line in sys.stdin:
    part, side, result = line.split()
    random, side = np.random.default_rng(0), int(side)
    if part == "decode":
        x = random.standard_normal((1, 16, side // 8, side // 8))
    else:
        x = random.uniform(-1, 1, (1, 3, side, side))
    run, x = getattr(codec, part), x.astype(np.float32)
    np.save(result, run(x))
    start = time.perf_counter()
    run(x)
    print(time.perf_counter() - start, flush=True)
"""


class Contender:
    """A process that runs what it is told to."""

    def __init__(self, name: str, folder: Path, dtype: str, model: Path, scratch: Path) -> None:
        self.name, self.result = name, scratch / f"{name.replace(' ', '-')}.npy"
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, dtype, str(model)],
            cwd=folder,  # which is where `python -c` looks first
            env={**os.environ, "GOMP_SPINCOUNT": "2000"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, part: str, side: int) -> float:
        """The seconds of one run."""
        assert self._process.stdin and self._process.stdout
        print(part, side, self.result, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def compare(
    contenders: list[Contender], part: str, side: int, repeats: int
) -> list[dict[str, Any]]:
    """Medians and spread; the second contender is what errors are measured from."""
    seconds: dict[str, list[float]] = {one.name: [] for one in contenders}
    for _ in range(repeats):
        for one in contenders:
            seconds[one.name].append(one.run(part, side))
    results = {one.name: np.load(one.result).astype(np.float64) for one in contenders}
    exact = results["float32"]
    rows = []
    for name, times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4)
        ratios = [a / b for a, b in zip(seconds[contenders[0].name], times, strict=True)]
        error = np.linalg.norm(results[name] - exact) / np.linalg.norm(exact)
        rows.append(
            {"part": part, "side": side, "contender": name, "median": median, "iqr": high - low}
            | {"ratio": statistics.median(ratios), "error": float(error)}
        )
    return rows


def embedded(model: str) -> Path:
    """The file of an embedded model of this checkout, which other checkouts may not have."""
    return HERE / "auravae_cli" / "weights" / f"{model}.safetensors"


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", type=Path, help="another checkout")
    parser.add_argument(
        "--model", default="small", help="an embedded model of this checkout; all run its file"
    )
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch, model = Path(folder), embedded(arguments.model)
        contenders = [
            Contender("float32", HERE, "float32", model, scratch),
            Contender("bfloat16", HERE, "bfloat16", model, scratch),
        ]
        if arguments.base:
            contenders.insert(0, Contender("base", arguments.base, "float32", model, scratch))
        results = []
        print(f"part    side  contender   median ms    IQR  speed of {contenders[0].name}   error")
        for part in PARTS:
            for side in arguments.sides:
                for row in compare(contenders, part, side, arguments.repeats):
                    results.append(row)
                    print(
                        f"{part}  {side:5}  {row['contender']:9} {1000 * row['median']:11.0f} "
                        f"{1000 * row['iqr']:6.0f}  {row['ratio']:6.2f} times  {row['error']:.1e}",
                        flush=True,
                    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
