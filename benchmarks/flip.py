"""How fast stored latents are flipped, against copying the same bytes.

    python benchmarks/flip.py [--latents 10000] [--rounds 7]

Shards of 1,000 latents of 16 x 32 x 32 in float16. "safe flip" is what `auravae flip` runs for
each shard: read, act, write to a temporary name, fsync, rename. It is compared with a copy that is
as safe: the same without the action. Most of that time is the disk's, so the plain contenders
leave the fsync out: a copy through a buffer, a flip, and `shutil.copyfile`, in which the kernel
copies by itself. Interleaved, after a warm-up round; the source is in the page cache for all.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from auravae_cli import HV, GroupElement, H, LatentFile, V, load_codec, read_latents, stack
from auravae_cli.files.atomic import atomic_file
from auravae_cli.latents.latent_file import flipped_chunks, write_flipped

SHARD = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--latents", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = make_shards(folder, arguments.latents)
        total = sum(shard.stat().st_size for shard in shards)
        contenders: dict[str, Callable[[Path, Path], object]] = {
            "safe copy": copy_safely,
            "safe flip h": flip_by(H),
            "safe flip v": flip_by(V),
            "safe flip hv": flip_by(HV),
            "plain copy": copy_plainly,
            "plain flip h": flip_plainly,
            "shutil.copyfile": shutil.copyfile,
        }
        seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
        for _ in range(arguments.rounds + 1):
            for contender, work in contenders.items():
                started = time.perf_counter()
                for shard in shards:
                    work(shard, folder / f"out-{shard.name}")
                seconds[contender].append(time.perf_counter() - started)
                for shard in shards:
                    (folder / f"out-{shard.name}").unlink()
    copies = {name: statistics.median(seconds[f"{name} copy"][1:]) for name in ("safe", "plain")}
    print(
        f"{arguments.latents} latents of 16 x 32 x 32, {total / 1e6:.0f} MB in {len(shards)} shards"
    )
    print(f"{'':<16} {'median':>8} {'quartiles':>17} {'GB/s':>6} {'of its copy':>12}")
    for contender, measured in seconds.items():
        low, median, high = statistics.quantiles(measured[1:], n=4)
        copy = copies["safe" if contender.startswith("safe") else "plain"]
        speed = f"{total / median / 1e9:6.2f} {copy / median:11.0%}"
        print(f"{contender:<16} {median:7.3f}s {low:7.3f} to {high:.3f}s {speed}")


def make_shards(folder: Path, latents: int) -> list[Path]:
    """Shards of random latents with a record for each row, as an encoder would write them."""
    codec, random = load_codec("linear"), np.random.default_rng(0)
    rows = [codec.encode_image(random.integers(0, 256, (256, 256, 3), np.uint8)) for _ in range(20)]
    shards = []
    for start in range(0, latents, SHARD):
        numbers = range(start, min(start + SHARD, latents))
        shard = stack([named(rows[number % 20], number) for number in numbers])
        shards.append(folder / f"shard-{start:08}.safetensors")
        shards[-1].write_bytes(shard.to_bytes())
    return shards


def named(latent: LatentFile, number: int) -> LatentFile:
    """The latent as that of a picture of its own."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    record = replace(latent.records[0], source=f"{number:08}.jpg", source_sha256=digest)
    return replace(latent, records=(record,))


def copy_safely(source: Path, target: Path) -> None:
    """The bytes of a file under another name, whole or not at all, on the disk."""
    with source.open("rb") as reader, atomic_file(target) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def copy_plainly(source: Path, target: Path) -> None:
    """The same without waiting for the disk."""
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def flip_plainly(source: Path, target: Path) -> None:
    """A horizontal flip without waiting for the disk."""
    with target.open("wb") as writer:
        writer.writelines(flipped_chunks(read_latents(source), H))


def flip_by(g: GroupElement) -> Callable[[Path, Path], object]:
    """What `auravae flip` does with one shard."""
    return lambda source, target: write_flipped(target, read_latents(source), g)


if __name__ == "__main__":
    main()
