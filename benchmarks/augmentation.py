"""What flips cost: one store that is flipped as it is read, against encoding every picture twice.

    python benchmarks/augmentation.py PHOTOS [--model small] [--resize 256] [--runs 3]

Compares, interleaved in one run, both ways to have every picture in two orientations: the usual
trainers decode a picture once, encode it and its mirror image, and store both; we encode it once
and let the group act while an epoch is read. The time of the second includes that epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from auravae_cli import Codec, LatentDataset, Preparation, encode_store, load_codec
from auravae_cli.model.autoencoder import Autoencoder
from auravae_cli.model.planning.run_plan import Plan
from auravae_cli.operations.suffixes import PICTURES


@dataclass(frozen=True)
class Twice:
    """An autoencoder that also encodes the mirror image of what it is given, and stores that."""

    inner: Autoencoder
    mirrored: BinaryIO

    def encode(self, images: Any) -> Any:
        """Encode both; the latents of the pictures as they are."""
        flipped = self.inner.encode(np.ascontiguousarray(images[..., ::-1]))
        self.mirrored.write(flipped.clip(-8, 8).astype(np.float16).tobytes())
        return self.inner.encode(images)

    def decode(self, latents: Any) -> Any:
        """Not needed here."""
        raise NotImplementedError

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """That of one of both."""
        return self.inner.plan(part, batch, height, width)


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("--model", default="small")
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--limit", type=int, default=20, help="so many pictures")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    codec = load_codec(arguments.model, parts=("encoder",))
    side = arguments.resize
    preparation = Preparation(resize=side, center_crop=(side, side))
    files = sorted(p for p in Path(arguments.photos).rglob("*") if p.suffix.lower() in PICTURES)
    photos = files[: arguments.limit]
    results: dict[str, list[tuple[float, int]]] = {"encoded twice": [], "flipped as read": []}
    for _ in range(arguments.runs):
        results["encoded twice"].append(encode_twice(codec, photos, preparation))
        results["flipped as read"].append(encode_once(codec, photos, preparation))
    for name, runs in results.items():
        seconds = [run[0] for run in runs]
        print(
            f"{name:16} {statistics.median(seconds):7.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
            f"   {runs[0][1]:>12,} bytes"
        )
    pairs = zip(results["flipped as read"], results["encoded twice"], strict=True)
    shares = sorted(once[0] / twice[0] for once, twice in pairs)
    size = results["flipped as read"][0][1] / results["encoded twice"][0][1]
    print(
        f"{arguments.model}, {arguments.limit} pictures of {side} px: {statistics.median(shares):.1%} of the "
        f"time ({shares[0]:.1%} to {shares[-1]:.1%}), {size:.1%} of the bytes"
    )


def encode_once(codec: Codec, photos: list[Path], preparation: Preparation) -> tuple[float, int]:
    """Seconds and bytes of a store, and of an epoch of random flips read from it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        size = fill(codec, photos, preparation, Path(folder, "store"))
        data = LatentDataset(f"{folder}/store", flip="random")
        for index in range(len(data)):
            data[index]
        return time.perf_counter() - start, size


def encode_twice(codec: Codec, photos: list[Path], preparation: Preparation) -> tuple[float, int]:
    """Seconds and bytes of a store, and of as many mirrored latents encoded on their own."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with Path(folder, "mirrored").open("wb") as mirrored:
            twice = replace(codec, autoencoder=Twice(codec.autoencoder, mirrored))
            size = fill(twice, photos, preparation, Path(folder, "store"))
        return time.perf_counter() - start, size + Path(folder, "mirrored").stat().st_size


def fill(codec: Codec, photos: list[Path], preparation: Preparation, path: Path) -> int:
    """Encode into a store; its bytes."""
    (shard,) = encode_store(
        photos, path, model=codec, preparation=preparation, shard_size=len(photos)
    )
    return shard.size


if __name__ == "__main__":
    main()
