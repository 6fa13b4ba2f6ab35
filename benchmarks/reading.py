"""How fast a trainer gets latents at random: from a store, against one file per picture.

    python benchmarks/reading.py [--rows 4000] [--rounds 7]

Latents of 16 x 32 x 32, float16 in the store (4 shards) and in the safetensors files, float32 in the
uncompressed .npz files, as scripts often leave them. Every contender gives float32 tensors, row by row,
in one shuffled order, in one process. Interleaved, after a warm-up round; all is in the page cache,
so this is the cost of the formats and not of the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from auravae_cli import GROUP, LatentDataset, LatentFile, load_codec, read_latents, stack
from auravae_cli.files.canonical_json import canonical
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.latents.latent_file import Record
from auravae_cli.store.manifest import Manifest, Output
from auravae_cli.store.names import manifest_name
from auravae_cli.store.settings import StoreSettings
from auravae_cli.symmetry.geometry import Padding

SHARDS = 4
SPACE = load_codec("linear", parts=("encoder",)).space


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in a DataLoader's worker
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, arguments.rows)
        contenders = readers(folder)
        order = np.random.default_rng(0).permutation(arguments.rows).tolist()
        seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
        for _ in range(arguments.rounds + 1):
            for contender, read in contenders.items():
                started = time.perf_counter()
                for index in order:
                    read(index)
                seconds[contender].append(time.perf_counter() - started)
    print(f"{arguments.rows} latents of 16 x 32 x 32 at random, {arguments.rounds} rounds")
    print(f"{'':<34} {'rows/s':>8} {'quartiles':>18} {'us a row':>9}")
    for contender, measured in seconds.items():
        low, median, high = (arguments.rows / s for s in statistics.quantiles(measured[1:], n=4))
        print(f"{contender:<34} {median:8.0f} {high:8.0f} to {low:6.0f} {1e6 / median:9.1f}")


def readers(folder: Path) -> dict[str, Callable[[int], object]]:
    """Each way to get a row, from its number to a sample or a float32 tensor."""
    store = folder / "store"
    plain = LatentDataset(store)
    raw = LatentDataset(store, dtype=None)
    flipped = LatentDataset(store, flip="random", flips=GROUP)
    told = LatentDataset(store, flip="random", flips=GROUP, fields=("key", "label", "padding"))

    def single(index: int) -> torch.Tensor:
        latent = read_latents(folder / "files" / f"{index:08}.safetensors")
        return torch.from_numpy(latent.values.copy()).float()

    def npz(index: int) -> torch.Tensor:
        with np.load(folder / "files" / f"{index:08}.npz") as arrays:
            return torch.from_numpy(arrays["latent"])

    return {
        "store": plain.__getitem__,
        "store, as stored (float16)": raw.__getitem__,
        "store, random flips": flipped.__getitem__,
        "store, random flips and 3 fields": told.__getitem__,
        "a safetensors file per picture": single,
        "a float32 .npz file per picture": npz,
    }


def make_files(folder: Path, rows: int) -> None:
    """The same latents as a store, as safetensors files, and as .npz files."""
    store, files = folder / "store", folder / "files"
    store.mkdir()
    files.mkdir()
    random = np.random.default_rng(0)
    settings = StoreSettings(SPACE, FLOAT16, "float32", {})
    (store / "store.json").write_bytes(canonical(settings.to_json()))
    for shard, numbers in enumerate(np.array_split(np.arange(rows), SHARDS)):
        latents = [latent(random, int(number)) for number in numbers]
        for number, single in zip(numbers, latents, strict=True):
            (files / f"{number:08}.safetensors").write_bytes(single.to_bytes())
            np.savez(files / f"{number:08}.npz", latent=single.values.astype(np.float32))
        content = stack(latents).to_bytes()
        digest = hashlib.sha256(content).hexdigest()
        output = Output(
            f"{shard}.32x32.safetensors", len(content), digest, (len(latents), 16, 32, 32)
        )
        (store / output.name).write_bytes(content)
        manifest = Manifest(str(shard), settings.sha256, (), (output,), 0)
        (store / manifest_name(str(shard))).write_bytes(manifest.to_bytes())


def latent(random: np.random.Generator, number: int) -> LatentFile:
    """A random latent with a record such as an encoder writes."""
    values = np.clip(random.normal(size=(16, 32, 32)), -8, 8).astype(np.float16)
    key = f"{number:08}"
    record = Record((256, 256), Padding(), source=f"{key}.jpg", key=key)
    record = replace(record, source_sha256=hashlib.sha256(key.encode()).hexdigest())
    record = replace(record, annotations={"caption": f"picture {key}", "label": number % 1000})
    return LatentFile(values, FLOAT16, SPACE, (record,), "benchmark")


if __name__ == "__main__":
    main()
