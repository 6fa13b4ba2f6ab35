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

from auravae_cli import Preparation, load_codec
from auravae_cli.defaults import MAX_PIXELS
from auravae_cli.files.storage import open_storage
from auravae_cli.images.read import read_image
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit
from auravae_cli.operations.encode_shard import ShardOptions
from auravae_cli.operations.encode_store import LocalEngine, find_work
from auravae_cli.operations.input_shards import InputShard, make_shards
from auravae_cli.operations.sources import find_files
from auravae_cli.store.commit import prepare_store
from auravae_cli.store.format import StoreSettings


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("--model", default="linear")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, default=0, help="so many pictures; 0: all")
    arguments = parser.parse_args()
    codec = load_codec(arguments.model, parts=("encoder",))
    files = find_files([arguments.photos])
    shards = make_shards(files[: arguments.limit or None], 1)
    tensors = [
        Preparation().apply(read_image(Path(f.root, f.entry.name).read_bytes()), 8).padded
        for f in shards[0].files
    ]
    alone, whole = [], []
    for _ in range(arguments.runs):
        alone.append(time_model(codec, tensors))
        whole.append(time_pipeline(codec, shards))
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


def time_pipeline(codec: Codec, shards: list[InputShard]) -> float:
    """Seconds from files to a store."""
    options = ShardOptions(Preparation(), MAX_PIXELS)
    settings = StoreSettings(
        codec.space, FLOAT16, codec.compute_dtype, options.preparation.to_json(), len(shards)
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        storage = open_storage(f"{folder}/store")
        prepare_store(storage, settings)
        work = find_work(shards, storage, settings, retry_failures=False)
        for _ in LocalEngine(codec).encode(work, storage, settings, options, FailureLimit()):
            pass
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
