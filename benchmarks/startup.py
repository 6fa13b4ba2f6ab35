"""How soon `auravae` answers, against what it takes to import torch.

    git worktree add /tmp/base c2c1eb0
    python benchmarks/startup.py [--base /tmp/base] [--rounds 15]

Fresh processes of this checkout, and of another one, taking turns; medians, quartiles, and the ratio to
`import torch`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from auravae_cli import load_codec

HERE = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "auravae_cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, tuple[list[str], Path]] = {
            "import torch": ([sys.executable, "-c", "import torch"], HERE),
            "python -c pass": ([sys.executable, "-c", "pass"], HERE),
        }
        for name, command in commands(Path(folder)).items():
            runs[name] = (command, HERE)
            if arguments.base:
                runs[f"{name}, base"] = (command, arguments.base.resolve())
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.rounds + 1):
            for name, (command, checkout) in runs.items():
                environment = os.environ | {"PYTHONPATH": str(checkout)}
                started = time.perf_counter()
                subprocess.run(
                    command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment
                )
                seconds[name].append(time.perf_counter() - started)
    torch = statistics.median(seconds["import torch"][1:])
    print(f"{'command':<28} {'median':>8} {'quartiles':>17} {'of import torch':>16}")
    for name, measured in seconds.items():
        low, median, high = statistics.quantiles(measured[1:], n=4)  # the first round warms up
        print(f"{name:<28} {median:7.3f}s {low:7.3f} to {high:.3f}s {median / torch:15.1%}")


def commands(folder: Path) -> dict[str, list[str]]:
    """Commands by their names, and in ``folder`` what they read."""
    pixels = np.zeros((512, 512, 3), np.uint8)
    latent, photo = folder / "photo.safetensors", folder / "photo.ppm"
    latent.write_bytes(load_codec("linear").encode_image(pixels).to_bytes())
    photo.write_bytes(b"P6 512 512 255\n" + pixels.tobytes())
    output = ["--model", "linear", "--overwrite", "-o", str(folder / "encoded")]
    return {
        "auravae --help": [*PROGRAM, "--help"],
        "auravae info FILE": [*PROGRAM, "info", str(latent)],
        "auravae flip FILE": [*PROGRAM, "flip", str(latent), "-H", "--overwrite"],
        "auravae encode PHOTO": [*PROGRAM, "encode", str(photo), *output],
    }


if __name__ == "__main__":
    main()
