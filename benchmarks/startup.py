"""How soon `auravae` answers, against what it takes to import torch.

    python benchmarks/startup.py [--rounds 15]

Fresh processes, interleaved; medians, quartiles, and the ratio to `import torch`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from auravae_cli import load_codec

PROGRAM = [sys.executable, "-m", "auravae_cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        latent = Path(folder) / "photo.safetensors"
        pixels = np.zeros((512, 512, 3), np.uint8)
        latent.write_bytes(load_codec("linear").encode_image(pixels).to_bytes())
        photo = Path(folder) / "photo.ppm"
        photo.write_bytes(b"P6 512 512 255\n" + pixels.tobytes())
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "python -c pass": [sys.executable, "-c", "pass"],
            "auravae --help": [*PROGRAM, "--help"],
            "auravae info FILE": [*PROGRAM, "info", str(latent)],
            "auravae flip FILE": [*PROGRAM, "flip", str(latent), "-H", "--overwrite"],
            "auravae encode PHOTO": [
                *PROGRAM,
                "encode",
                str(photo),
                "--model",
                "linear",
                "--overwrite",
                "-o",
                folder,
            ],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
    torch = statistics.median(seconds["import torch"][1:])
    print(f"{'command':<22} {'median':>8} {'quartiles':>17} {'of import torch':>16}")
    for name, measured in seconds.items():
        low, median, high = statistics.quantiles(measured[1:], n=4)  # the first round warms up
        print(f"{name:<22} {median:7.3f}s {low:7.3f} to {high:.3f}s {median / torch:15.0%}")


if __name__ == "__main__":
    main()
