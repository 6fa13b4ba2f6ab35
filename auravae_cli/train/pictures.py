"""Training pictures: decoded once and cropped at random, as a pure function of seed and step.

::

    folders, tars --read_pictures--> pictures in memory --sample--> crop --batch--> [B, 3, s, s]
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auravae_cli.errors import ConfigError, InputImageError
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import read_file
from auravae_cli.files.tars import DAMAGES, read_members
from auravae_cli.images.read import Pixels, read_image, to_8_bit
from auravae_cli.operations.suffixes import is_picture
from auravae_cli.train.recipe import Data, Recipe
from auravae_cli.train.synthetic import drawn, flat

Batch = NDArray[np.uint8]
_WORKERS = 4  # threads that decode pictures


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures, uint8 [H, W, 3] each, and the unreadable ones."""

    training: tuple[Pixels, ...]
    validation: tuple[Pixels, ...]
    unreadable: tuple[str, ...]


def read_pictures(data: Data) -> Pictures:
    """Decode every picture of the sources.

    The held-out ones are those with the smallest hash of their bytes, so they are always the same,
    whatever their names and order.

    Raises:
        ConfigError: a source is missing, or there are too few pictures.
    """
    decoded: dict[str, Pixels] = {}
    unreadable = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        tasks: deque[tuple[str, str, Future[Pixels]]] = deque()

        def finish() -> None:
            name, digest, task = tasks.popleft()
            try:
                decoded[digest] = task.result()
            except InputImageError as error:
                unreadable.append(f"{name}: {error}")

        for name, content in _files(data.sources):
            if isinstance(content, str):
                unreadable.append(f"{name}: {content}")
                continue
            digest = hashlib.sha256(content).hexdigest()
            tasks.append((name, digest, pool.submit(_decode, content, data.max_side)))
            if len(tasks) > 4 * _WORKERS:
                finish()
        while tasks:
            finish()
    order = sorted(decoded)
    if len(order) <= data.num_validation:
        raise ConfigError(
            f"data: {len(order)} readable pictures in {', '.join(data.sources) or 'no source'}; "
            f"expected more than the {data.num_validation} that are held out. Name folders or tars "
            "of pictures with --data, or in the recipe"
        )
    pictures = [decoded[digest] for digest in order]
    held_out = data.num_validation
    return Pictures(tuple(pictures[held_out:]), tuple(pictures[:held_out]), tuple(unreadable))


def _files(sources: tuple[str, ...]) -> Iterator[tuple[str, bytes | str]]:
    """Yield the name and content of every picture in folders and tars; for an unreadable one, the reason."""
    for source in map(Path, sources):
        if source.is_dir():
            for path in sorted(source.rglob("*")):
                if is_picture(path.name) and path.is_file():
                    try:
                        yield str(path), read_file(path, FILE_BYTES, InputImageError)
                    except InputImageError as error:
                        yield str(path), str(error)
        elif source.is_file():
            yield from _members(source)
        else:
            raise ConfigError(f"data.sources: {source}: expected a folder or a tar of pictures")


def _members(source: Path) -> Iterator[tuple[str, bytes | str]]:
    try:
        with source.open("rb") as file:
            for name, content in read_members(
                file, lambda n: FILE_BYTES if is_picture(n) else None
            ):
                yield f"{source}: {name}", content if isinstance(content, str) else bytes(content)
    except (OSError, *DAMAGES) as error:
        raise ConfigError(
            f"data.sources: {source}: expected a folder or a tar of pictures, none that is damaged "
            f"or cut off ({error})"
        ) from error


def _decode(content: bytes, max_side: int) -> Pixels:
    pixels = to_8_bit(read_image(content).pixels)
    if max(pixels.shape) <= max_side:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def batches(
    pictures: tuple[Pixels, ...],
    recipe: Recipe,
    start: int,
    rank: int,
    world_size: int,
    workers: int,
) -> Iterator[Batch]:
    """Yield the batches of the steps from ``start`` on, uint8 [B, 3, s, s], made ahead by threads."""
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque[Future[Batch]]()
        for step in count(start):
            if step < recipe.num_steps:
                ahead.append(pool.submit(make_batch, pictures, recipe, step, rank, world_size))
            if not ahead:
                return
            if len(ahead) > 2 * workers or step >= recipe.num_steps:
                yield ahead.popleft().result()


def make_batch(
    pictures: tuple[Pixels, ...], recipe: Recipe, step: int, rank: int = 0, world_size: int = 1
) -> Batch:
    """Return a process's part of the batch of one step: uint8 [B / world_size, 3, s, s].

    Equal arguments give equal batches.
    """
    generator = np.random.default_rng([recipe.seed, step, rank])
    stage = recipe.stage_at(step)
    samples = [
        _sample(pictures, recipe.data, generator, stage.crop_size)
        for _ in range(stage.batch_size // world_size)
    ]
    return np.ascontiguousarray(np.stack(samples).transpose(0, 3, 1, 2))


def _sample(
    pictures: tuple[Pixels, ...], data: Data, generator: np.random.Generator, side: int
) -> Pixels:
    draw = generator.random()
    if draw < data.drawn:
        return drawn(generator, side)
    if draw < data.drawn + data.flat:
        return flat(generator, side)
    return crop(pictures[generator.integers(len(pictures))], data, generator, side)


def crop(picture: Pixels, data: Data, generator: np.random.Generator, side: int) -> Pixels:
    """Return a random square of a picture, [side, side, 3]; enlarged only if the picture is smaller."""
    height, width = picture.shape[:2]
    scale = generator.uniform(data.min_scale, 1) if generator.random() < data.reduced else 1.0
    window = min(round(side / scale), height, width)
    top, left = (int(generator.integers(length - window + 1)) for length in (height, width))
    square = picture[top : top + window, left : left + window]
    if window == side:
        return square
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))
