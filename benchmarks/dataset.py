"""How much of the model's own speed a whole data set run keeps: from picture files to a store.

    python benchmarks/dataset.py PHOTOS [--model linear] [--runs 5]

Compares, interleaved in one run: the model alone on tensors that lie in memory already, prepared
from the same pictures; and ``auravae encode`` from those picture files to a store on disk.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from auravae_cli import Codec, Preparation, encode_store, load_codec
from auravae_cli.images.read import read_image
from auravae_cli.operations.suffixes import PICTURES


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("--model", default="linear")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, default=0, help="so many pictures; 0: all")
    arguments = parser.parse_args()
    codec = load_codec(arguments.model, parts=("encoder",))
    files = sorted(p for p in Path(arguments.photos).rglob("*") if p.suffix.lower() in PICTURES)
    photos = files[: arguments.limit or None]
    tensors = [Preparation().apply(read_image(photo.read_bytes()), 8).padded for photo in photos]
    alone, whole = [], []
    for _ in range(arguments.runs):
        alone.append(time_model(codec, tensors))
        whole.append(time_pipeline(codec, photos))
    for name, seconds in (("model alone", alone), ("files to store", whole)):
        rates = [len(tensors) / s for s in seconds]
        print(
            f"{name:16} {statistics.median(rates):8.1f} pictures/s   ({min(rates):.1f} to {max(rates):.1f})"
        )
    shares = sorted(a / w for a, w in zip(alone, whole, strict=True))
    print(
        f"{arguments.model}: files to store runs at {statistics.median(shares):.1%} of the model alone "
        f"({shares[0]:.1%} to {shares[-1]:.1%}); {len(tensors)} pictures, {arguments.runs} runs"
    )


def time_model(codec: Codec, tensors: list[np.ndarray]) -> float:
    """Seconds for the model on pictures in memory."""
    start = time.perf_counter()
    for tensor in tensors:
        codec.encode(tensor[None])
    return time.perf_counter() - start


def time_pipeline(codec: Codec, photos: list[Path]) -> float:
    """Seconds from files to a store."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        encode_store(photos, f"{folder}/store", model=codec, shard_size=len(photos))
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
