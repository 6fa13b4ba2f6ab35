"""Whole commands on one picture, beside another checkout of this project (commit c2c1eb0, say).

    git worktree add /tmp/base c2c1eb0
    python benchmarks/whole_processes.py --base /tmp/base [--model small] [--repeats 7] [--json FILE]

Each command is a fresh process with a cache folder of its own: `cold` starts with an empty one, so that
kernels are built where the package brings none; `warm` has run before. The checkouts take turns: read the
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
COMMANDS = {
    "encode": ("encode", "PICTURE", "-m", "MODEL", "-o", "z.safetensors"),
    "decode": ("decode", "z.safetensors", "-m", "MODEL", "-o", "y.png"),
    "roundtrip": ("roundtrip", "PICTURE", "-m", "MODEL", "-o", "trip.png"),
}


class Checkout:
    """A checkout, and a folder for what its commands write."""

    def __init__(self, source: Path, folder: Path, places: dict[str, str]) -> None:
        self.source, self.folder, self.places = source, folder, places
        self.cache = folder / "cache"
        folder.mkdir()

    def run(self, command: str, is_cold: bool) -> float:
        """The seconds of one process."""
        if is_cold:
            shutil.rmtree(self.cache, ignore_errors=True)
        words = [self.places.get(word, word) for word in COMMANDS[command]]
        environment = os.environ | {
            "PYTHONPATH": str(self.source),
            "XDG_CACHE_HOME": str(self.cache),
        }
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "auravae_cli", *words, "--device", "cpu", "--overwrite"],
            cwd=self.folder,
            env=environment,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - start


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", type=Path, required=True, help="another checkout")
    parser.add_argument("--picture", type=Path, default=HERE / "samples" / "coffee.jpg")
    parser.add_argument(
        "--model", default="small", help="an embedded model of this checkout; both run its file"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        model = HERE / "auravae_cli" / "weights" / f"{arguments.model}.safetensors"
        places = {"PICTURE": str(arguments.picture.resolve()), "MODEL": str(model)}
        base = Checkout(arguments.base.resolve(), Path(scratch, "base"), places)
        ours = Checkout(HERE, Path(scratch, "ours"), places)
        for one in (base, ours):  # a latent to decode, and caches that are warm
            one.run("encode", is_cold=False)
        print("command    cache    base s    ours s   ratio")
        for command in COMMANDS:
            for is_cold in (False, True):
                times = [
                    [one.run(command, is_cold) for one in (base, ours)]
                    for _ in range(arguments.repeats)
                ]
                medians = [statistics.median(column) for column in zip(*times, strict=True)]
                ratio = statistics.median(a / b for a, b in times)
                cache = "cold" if is_cold else "warm"
                rows.append({"command": command, "cache": cache, "seconds": times, "ratio": ratio})
                print(
                    f"{command:9}  {cache}  {medians[0]:8.2f}  {medians[1]:8.2f}  {ratio:6.2f}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
