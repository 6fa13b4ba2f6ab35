"""Predict what a command would do: sizes from headers, the rest by arithmetic."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from auravae_cli.errors import AuraVaeError, InputImageError, LatentFileError
from auravae_cli.files.limits import FILE_BYTES, Limit
from auravae_cli.files.mapping import BytesFile, read_or_map
from auravae_cli.files.places import below, is_remote
from auravae_cli.files.tars import DAMAGES, read_members
from auravae_cli.forecast.run_setting import RunSetting
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import read_size
from auravae_cli.machine.speeds import Speeds, speed_key
from auravae_cli.model.spec.registry import name_of
from auravae_cli.operations.batches import Outcome, failed
from auravae_cli.operations.decode import read_latent
from auravae_cli.operations.outputs import Job, is_pipe
from auravae_cli.operations.sources import SourceFile
from auravae_cli.operations.suffixes import is_picture, is_tar
from auravae_cli.operations.timed_batches import Parts, numbers, operations_of

PLANNED, UNKNOWN = "planned", "unknown"
EXISTS = "exists: skipped if it is the result of this input with these settings, otherwise refused"
_STREAM = "a stream's size is not known before it is read"
_REMOTE = "not on this machine: its sizes are not looked up"


@dataclass(frozen=True)
class Forecaster:
    """Predicts the cost of ``command``: parts of models, each run ``times`` times on each picture.

    ``calibrate`` measures the speed of a setting if it is not known.
    """

    command: str
    parts: Parts
    speeds: Speeds
    calibrate: Callable[[RunSetting], None]
    batch_size: int | None = None

    def predict(self, setting: RunSetting, number: int, size: tuple[int, int]) -> dict[str, Any]:
        """Return the facts of ``number`` pictures of a padded (height, width). Raises ComputeError."""
        batch = min(number, self.batch_size or setting.where.batch_size)
        plans = [setting.plan(part, batch, *size) for part, _ in self.parts]
        seconds = self.seconds(setting, operations_of(plans, self.parts, 1))
        return {
            "model": setting.model,
            "padded_size": list(size),
            "tiles": max(plan.tiles for plan in plans),
            "predicted": numbers(seconds, 1, max(plan.memory for plan in plans))
            | {"weights": setting.weights},
        }

    def seconds(self, setting: RunSetting, operations: int) -> float | None:
        """Return how long ``operations`` take on this machine."""
        where = setting.where
        key = speed_key(
            self.command, setting.weights_sha256, where.device, where.dtype, where.engine
        )
        found = self.speeds.seconds(key, operations)
        if found is None:
            self.calibrate(setting)
            found = self.speeds.seconds(key, operations)
        return found


def forecast_pictures(
    jobs: Iterable[Job],
    forecaster: Forecaster,
    setting: RunSetting,
    preparation: Preparation,
    max_pixels: int,
    *,
    keeps: bool,
) -> Iterator[Outcome]:
    """Yield an outcome per picture; ``keeps`` means that existing outputs are not replaced."""

    def size_of(job: Job) -> tuple[int, int]:
        assert job.source.path is not None
        return padded_size(job.source.path, setting, preparation, max_pixels)

    return _forecast(jobs, forecaster, lambda job: (setting, size_of(job)), keeps)


def forecast_latents(
    jobs: Iterable[Job],
    forecaster: Forecaster,
    setting_of: Callable[[str], RunSetting],
    *,
    keeps: bool,
) -> Iterator[Outcome]:
    """Yield an outcome per latent; ``setting_of`` returns the setting of its model."""

    def look(job: Job) -> tuple[RunSetting, tuple[int, int]]:
        latent, _ = read_latent(job.source)
        setting = setting_of(name_of(latent.space.model, latent.space.weights_sha256))
        if latent.is_shard:
            raise LatentFileError("a shard of latents: expected a single one")
        factor = setting.downsampling_factor
        height, width = latent.values.shape[-2:]
        return setting, (factor * height, factor * width)

    return _forecast(jobs, forecaster, look, keeps)


def forecast_store(
    files: Iterable[SourceFile],
    forecaster: Forecaster,
    setting: RunSetting,
    preparation: Preparation,
    max_pixels: int,
) -> Iterator[Outcome]:
    """Yield an outcome per picture file, and per tar with the sums over its pictures."""
    for file in files:
        if not (is_tar(file.key) or is_picture(file.key)):
            continue  # a caption
        if is_remote(file.root):
            yield Outcome(f"{file.root}/{file.entry.name}", UNKNOWN, None, _REMOTE)
            continue
        path = below(Path(file.root), file.entry.name, to_write=False)
        try:
            sizes, unreadable = _sizes(path, setting, preparation, max_pixels)
            yield Outcome(str(path), PLANNED, details=_sum(sizes, unreadable, forecaster, setting))
        except (AuraVaeError, OSError, *DAMAGES) as error:
            yield failed(str(path), str(error))


def padded_size(
    source: Path | BinaryIO, setting: RunSetting, preparation: Preparation, max_pixels: int
) -> tuple[int, int]:
    """Return the encoder's (height, width) of a picture, from its header. Raises InputImageError."""
    size = read_size(source, max_pixels=max_pixels)
    return preparation.padded_size(*size, setting.downsampling_factor)


def _forecast(
    jobs: Iterable[Job],
    forecaster: Forecaster,
    look: Callable[[Job], tuple[RunSetting, tuple[int, int]]],
    keeps: bool,
) -> Iterator[Outcome]:
    """Read all sizes first, since the number of equal ones determines how many run together."""
    found: list[tuple[Job, tuple[RunSetting, tuple[int, int]] | Outcome]] = []
    for job in jobs:
        name = None if job.output is None else str(job.output)
        if job.source.path is None or is_pipe(job.source.path):
            found.append((job, Outcome(job.source.name, UNKNOWN, name, _STREAM)))
        elif keeps and job.output is not None and os.path.exists(job.output):
            found.append((job, Outcome(job.source.name, "skipped", name, EXISTS)))
        else:
            try:
                found.append((job, look(job)))
            except AuraVaeError as error:
                found.append((job, failed(job.source.name, str(error), name)))
    alike = Counter(looked for _, looked in found if not isinstance(looked, Outcome))
    for job, looked in found:
        if isinstance(looked, Outcome):
            yield looked
            continue
        name = None if job.output is None else str(job.output)
        try:
            details = forecaster.predict(looked[0], alike[looked], looked[1])
            yield Outcome(job.source.name, PLANNED, name, details=details)
        except AuraVaeError as error:
            details = {"model": looked[0].model, "padded_size": list(looked[1])}
            yield replace(failed(job.source.name, str(error), name), details=details)


def _sizes(
    path: Path, setting: RunSetting, preparation: Preparation, max_pixels: int
) -> tuple[Counter[tuple[int, int]], int]:
    """Return the number of pictures of each padded size in a file, and of unreadable ones."""
    sizes: Counter[tuple[int, int]] = Counter()
    if not is_tar(path.name):
        sizes[padded_size(path, setting, preparation, max_pixels)] += 1
        return sizes, 0
    failed = 0
    with path.open("rb") as file:  # mapped, so only the header of each picture is read
        for _, content in read_members(read_or_map(file), _limit_of):
            try:
                if isinstance(content, str):
                    raise InputImageError(content)
                found: Any = BytesFile(content)
                sizes[padded_size(found, setting, preparation, max_pixels)] += 1
            except AuraVaeError:
                failed += 1
    return sizes, failed


def _limit_of(name: str) -> Limit | None:
    return FILE_BYTES if is_picture(name) else None


def _sum(
    sizes: Counter[tuple[int, int]], failed: int, forecaster: Forecaster, setting: RunSetting
) -> dict[str, Any]:
    """Sum the facts of all pictures of a file."""
    each = [(n, forecaster.predict(setting, n, size)) for size, n in sizes.items()]
    seconds = [
        n * facts["predicted"]["seconds"] for n, facts in each if facts["predicted"]["seconds"]
    ]
    largest = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    return {
        "model": setting.model,
        "pictures": sum(sizes.values()),
        "unreadable": failed,
        "padded_size": list(largest),
        "tiles": max((facts["tiles"] for _, facts in each), default=1),
        "predicted": {
            "seconds": round(sum(seconds), 4) if seconds else None,
            "memory": max((facts["predicted"]["memory"] for _, facts in each), default=0),
            "weights": setting.weights,
        },
    }
