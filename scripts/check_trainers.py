"""Run exports and buckets through the code of trainers.

    python scripts/check_trainers.py DIR

DIR holds checkouts by their names: ``sd-scripts``, ``musubi-tuner``, ``ai-toolkit``, ``REPA``, ``SimpleTuner``;
any may be absent. Their functions are taken out of their files and run as they stand, so that nothing of theirs
needs to be installed. Prints a line per check; the exit code is 1 if one failed. Last run with
sd-scripts 48d368fa, musubi-tuner 30c658c4, ai-toolkit 27a03a91, REPA 67f71450 and SimpleTuner bc8e6ab7.
"""

from __future__ import annotations
import __future__

import argparse
import ast
import hashlib
import io
import json
import logging
import math
import os
import random
import re
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from auravae_cli import H, Irreps, LatentFile, Preparation, act, export_latents
from auravae_cli.errors import InputImageError
from auravae_cli.images.read import LoadedImage
from auravae_cli.images.trainer_buckets import AiToolkitBuckets, KohyaBuckets, MusubiBuckets
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.latents.latent_file import LatentSpace, Record

SPACE = LatentSpace("check", "0" * 64, 8, Irreps.parse("12xee+2xoe+2xeo"), 8.0)
COMMON: dict[str, Any] = {
    **{name: getattr(typing, name) for name in ("Any", "Optional", "Tuple", "List", "Union")},
    **{"math": math, "np": np, "os": os, "random": random, "torch": torch, "json": json},
    **{"PIL": __import__("PIL"), "Image": Image, "Dataset": object, "TypedDict": dict},
    "logger": logging.getLogger("trainer"),
}
SIDES = (64, 4000)


def taken(path: Path, *names: str, **more: Any) -> dict[str, Any]:
    """Run only the named classes and functions of a file; return their namespace."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    space = {**COMMON, **more}
    exec(compile(tree, str(path), "exec", flags=__future__.annotations.compiler_flag), space)
    return space


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    failed = 0
    for check in (
        *(kohya_buckets, musubi_buckets, ai_toolkit_buckets),
        *(kohya_files, repa_pairs, simpletuner_files),
    ):
        try:
            for line in check(folder):
                print(f"{check.__name__}: {line}")
        except FileNotFoundError as error:
            print(f"{check.__name__}: skipped: {error.filename} is absent")
        except AssertionError as error:
            failed += 1
            print(f"{check.__name__}: FAILED: {error}")
    sys.exit(bool(failed))


def compare(name: str, ours: Callable[..., Any], theirs: Callable[..., Any], count: int) -> str:
    """Compare two functions of width and height."""
    chance = random.Random(0)
    for _ in range(count):
        width, height = chance.randint(*SIDES), chance.randint(*SIDES)
        try:
            found: Any = ours(width, height)
        except InputImageError:
            found = None  # theirs gives a bucket of no pixels
        expected = theirs(width, height)
        agrees = found == expected if found else 0 in expected[0]
        assert agrees, f"{name}: {width} x {height}: {found}, expected {expected}"
    return f"{name}: {count} sizes agree"


def kohya_buckets(folder: Path) -> Iterator[str]:
    library = folder / "sd-scripts/library"
    sizes = taken(library / "model_util.py", "make_bucket_resolutions")["make_bucket_resolutions"]
    util = types.SimpleNamespace(make_bucket_resolutions=sizes)
    manager = taken(library / "train_util.py", "BucketManager", model_util=util)["BucketManager"]
    for wide, high, step, no_upscale in ((1024, 1024, 64, 0), (768, 512, 32, 0), (512, 512, 64, 1)):
        own = KohyaBuckets((high, wide), 256, 1536, step, bool(no_upscale))
        made = manager(bool(no_upscale), (wide, high), 256, 1536, step)
        made.make_buckets()

        def theirs(w: int, h: int, made: Any = made) -> Any:
            bucket, resized, _ = made.select_bucket(w, h)
            return tuple(map(int, bucket)), resized

        def ours(w: int, h: int, own: KohyaBuckets = own) -> Any:
            return own.nearest(h, w)[::-1], own.resized(h, w)[::-1]

        yield compare(f"{wide}x{high}, step {step}", ours, theirs, 20_000)


def musubi_buckets(folder: Path) -> Iterator[str]:
    path = folder / "musubi-tuner/src/musubi_tuner/dataset/bucket.py"
    names = {name: name for name in re.findall(r"ARCHITECTURE_\w+", path.read_text())}
    more = {**names, "divisible_by": lambda a, b: a - a % b}
    selector = taken(path, "BucketSelector", **more)["BucketSelector"]
    for wide, high, no_upscale in ((1024, 1024, False), (960, 544, True)):
        own = MusubiBuckets((high, wide), no_upscale)
        made = selector((wide, high), True, no_upscale, "ARCHITECTURE_Z_IMAGE")

        def theirs(w: int, h: int, made: Any = made) -> Any:
            return (tuple(map(int, made.get_bucket_resolution((w, h)))),)

        def ours(w: int, h: int, own: MusubiBuckets = own) -> Any:
            return (own.nearest(h, w)[::-1],)

        yield compare(f"{wide}x{high}", ours, theirs, 20_000)


def ai_toolkit_buckets(folder: Path) -> Iterator[str]:
    path = folder / "ai-toolkit/toolkit/buckets.py"
    made = taken(path, "get_bucket_for_image_size", "BucketResolution")["get_bucket_for_image_size"]
    for side, divisibility in ((1024, 16), (512, 32)):
        own = AiToolkitBuckets(side, divisibility)

        def theirs(w: int, h: int, side: int = side, divisibility: int = divisibility) -> Any:
            found = made(w, h, side, divisibility)
            return ((found["width"], found["height"]),)

        def ours(w: int, h: int, own: AiToolkitBuckets = own) -> Any:
            return (own.nearest(h, w)[::-1],)

        yield compare(f"{side}, multiples of {divisibility}", ours, theirs, 20_000)


def latent_of(buckets: Any, height: int, width: int, seed: int) -> LatentFile:
    """Return a random latent of a picture that was prepared in a trainer's bucket."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    made = Preparation(buckets=buckets).apply(LoadedImage(pixels, "ab", 1, ()), 8)
    high, wide = made.pixels.shape[:2]
    values = np.random.default_rng(seed).normal(size=(16, high // 8, wide // 8)).astype("<f2")
    record = Record(
        *((high, wide), made.padding),
        source=f"{seed:03d}.png",
        source_size=(height, width),
        source_box=made.box,
        annotations={"label": seed},
    )
    return LatentFile(values, FLOAT16, SPACE, (record,), "check")


def kohya_files(folder: Path) -> Iterator[str]:
    """Every exported file is found, valid, and read as the latent and its mirror image."""
    library = folder / "sd-scripts/library"
    base = taken(library / "strategy_base.py", "LatentsCachingStrategy")["LatentsCachingStrategy"]
    found = taken(
        library / "strategy_flux.py", "FluxLatentsCachingStrategy", LatentsCachingStrategy=base
    )["FluxLatentsCachingStrategy"](True, 1, False)
    with tempfile.TemporaryDirectory() as name:
        buckets, sizes = KohyaBuckets((512, 512)), ((601, 403), (300, 900), (512, 512), (731, 1023))
        for seed, (height, width) in enumerate(sizes):
            latent = latent_of(buckets, height, width, seed)
            Path(name, f"{seed:03d}.safetensors").write_bytes(latent.to_bytes())
            export_latents(Path(name, f"{seed:03d}.safetensors"), name, "kohya")
            picture = str(Path(name, f"{seed:03d}.png"))
            path = found.get_latents_npz_path(picture, (width, height))
            bucket = buckets.nearest(height, width)[::-1]
            assert found.is_disk_cached_latents_expected(bucket, path, True, False), path
            z, size, _, mirrored, _ = found.load_latents_from_disk(path, bucket)
            assert size == [width, height], size
            assert np.array_equal(z, latent.to_float32()), "values"
            assert np.array_equal(mirrored, act(H, latent.to_float32(), SPACE.irreps)), "mirrored"
            found.save_latents_to_disk(
                path, torch.zeros(16, 9, 9), size, [0] * 4, None, None, "_9x9"
            )
    yield f"{len(sizes)} files are found, valid and read"


def repa_pairs(folder: Path) -> Iterator[str]:
    """Every latent is paired with its picture."""
    dataset = taken(folder / "REPA/dataset.py", "CustomDataset", pyspng=None)["CustomDataset"]
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        (data / "images").mkdir()
        (data / "latents").mkdir()
        for seed in (5, 2, 9, 0, 7):
            latent = latent_of(None, 16, 16, seed)
            record = replace(latent.records[0], source_size=None, source_box=None)
            latent = replace(latent, records=(record,))
            (data / f"latents/{9 - seed}.safetensors").write_bytes(latent.to_bytes())
            Image.new("RGB", (16, 16), (seed, 0, 0)).save(data / f"images/{seed:03d}.png")
        export_latents(data / "latents", data / "vae-sd", "edm2", pictures=data / "images")
        pairs = dataset(str(data))
        for number in range(len(pairs)):
            image, features, label = pairs[number]
            seed = int(image[0, 0, 0])
            assert int(label) == seed, f"label {label} with picture {seed}"
            values = np.random.default_rng(seed).normal(size=(16, 2, 2)).astype("<f2")
            assert np.array_equal(features[:16].numpy(), values.astype(np.float32)), seed
    yield f"{len(pairs)} of {len(pairs)} pairs are right"


def simpletuner_files(folder: Path) -> Iterator[str]:
    """Every latent is found by its picture, in folders as well, and read as it is; and a batch is made of them."""
    helpers = folder / "SimpleTuner/simpletuner/helpers"
    local = taken(
        helpers / "data_backend/local.py",
        "LocalDataBackend",
        BaseDataBackend=object,
        BytesIO=io.BytesIO,
    )["LocalDataBackend"]
    named = {"WebhookMixin": object, "sha256": hashlib.sha256, "ensure_dataset_type": None}
    named |= {"DEFAULT_NSFW_CHECK_MODELS_CSV": ""}
    cache = taken(helpers / "caching/vae.py", "VAECache", **named)["VAECache"]
    state = types.SimpleNamespace(
        get_accelerator=lambda: types.SimpleNamespace(device=torch.device("cpu"))
    )
    batch_of = taken(helpers / "training/collate.py", "check_latent_shapes", StateTracker=state)
    with tempfile.TemporaryDirectory() as name:
        pictures = [
            f"{sub}{stem}.png" for sub in ("", "a/", "a/b.c/") for stem in ("x", "y.z", "é")
        ]
        latents = {}
        for seed, picture in enumerate(pictures):
            latent = latent_of(None, 24, 16, seed)
            record = replace(latent.records[0], source=picture, source_size=None, source_box=None)
            latents[picture] = replace(latent, records=(record,))
            path = Path(name, "latents", picture).with_suffix(".safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(latents[picture].to_bytes())
        export_latents(Path(name, "latents"), Path(name, "cache"), "simpletuner")
        reader = cache.__new__(cache)
        reader.id, reader.vae_cache_ondemand, reader.hash_filenames = "check", False, True
        reader.image_data_backend = reader.cache_data_backend = local(None, "check")
        reader.cache_dir, reader.instance_data_dir = (
            str(Path(name, "cache")),
            str(Path(name, "data")),
        )
        paths = [str(Path(name, "data", picture)) for picture in pictures]
        reader.build_vae_cache_filename_map(paths)
        for picture in paths:
            assert reader.already_cached(picture), f"{picture} would be encoded again"
        found = reader.encode_images([None] * len(paths), paths)
        for picture, values in zip(pictures, found, strict=True):
            assert values.dtype == torch.float16, values.dtype
            assert np.array_equal(values.numpy(), latents[picture].values), picture
        batch = batch_of["check_latent_shapes"](found, paths, "check", [])
        assert batch.shape == (len(paths), 16, 3, 2), batch.shape
    yield f"{len(paths)} of {len(paths)} pictures find their latents"


if __name__ == "__main__":
    main()
