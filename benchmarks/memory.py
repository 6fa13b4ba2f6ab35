"""Whether the memory of `auravae encode` grows with the data set.

    python benchmarks/memory.py [--sizes 1000 10000] [--model linear]

Peak resident memory of processes that encode so many JPEGs of 128 x 128, from tars of 1000 and from
a folder, into a store.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

TAR_SIZE = 1000


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--model", default="linear")
    arguments = parser.parse_args()
    print(f"{'source':<8} {'pictures':>9} {'seconds':>8} {'peak memory':>12} {'to the first':>13}")
    with tempfile.TemporaryDirectory() as name:
        for kind, make in (("tars", make_tars), ("folder", make_folder)):
            first = 0
            for size in arguments.sizes:
                source, store = Path(name, f"{kind}{size}"), Path(name, f"{kind}{size}-store")
                source.mkdir()
                make(source, size)
                seconds, peak = measure(source, store, arguments.model)
                first = first or peak
                print(
                    f"{kind:<8} {size:>9} {seconds:>8.1f} {peak / 1024:>8.1f} MiB {peak / first:>13.3f}",
                    flush=True,
                )


def measure(source: Path, store: Path, model: str) -> tuple[float, int]:
    """Seconds and peak resident memory, in KiB, of a run."""
    options = ["--layout", "shards", "--quiet", "-m", model]
    command = [sys.executable, "-m", "auravae_cli", "encode", str(source), "-o", str(store)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *options])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss


def pictures(count: int) -> Iterator[tuple[str, bytes]]:
    """Smooth JPEGs of 128 x 128 with their names, made on the fly."""
    random = np.random.default_rng(0)
    for number in range(count):
        few = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        buffer = io.BytesIO()
        few.resize((128, 128)).save(buffer, "JPEG")
        yield f"{number:06d}.jpg", buffer.getvalue()


def make_tars(folder: Path, count: int) -> None:
    """Tars of 1000 pictures."""
    for number, (name, content) in enumerate(pictures(count)):
        if number % TAR_SIZE == 0:
            archive = tarfile.open(folder / f"{number // TAR_SIZE:05d}.tar", "w")  # noqa: SIM115
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        if number % TAR_SIZE == TAR_SIZE - 1 or number == count - 1:
            archive.close()


def make_folder(folder: Path, count: int) -> None:
    """Loose pictures."""
    for name, content in pictures(count):
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
