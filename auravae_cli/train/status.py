"""The progress of a run, from its log only: running, interrupted or finished. Does not need torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auravae_cli.errors import ConfigError
from auravae_cli.files.canonical_json import read_json
from auravae_cli.train.recipe import Stage

LOG_NAME = "log.jsonl"
RECENT = 20  # records that the speed is computed from


@dataclass(frozen=True)
class Validation:
    """The quality of the averaged weights on the held-out pictures: means over pictures, PSNR in dB.

    ``tint`` is the error of a channel's mean, in levels of 255, for the channel where it is largest;
    None in logs of older versions.
    """

    step: int
    psnr: float
    ssim: float
    tint: float | None = None


@dataclass(frozen=True)
class Status:
    """Steps and pixels done and in total, the speed, the time left, and the validations so far.

    ``pixels_per_second`` and ``seconds_left`` are None before the first logged step.
    """

    step: int
    num_steps: int
    pixels: int
    num_pixels: int
    pixels_per_second: float | None
    seconds_left: float | None
    validations: tuple[Validation, ...]


def read_status(folder: Path) -> Status:
    """The status of the run in ``folder``.

    Raises ConfigError: there is no log, or it does not record what the run will do.
    """
    path, rows = folder / LOG_NAME, read_rows(folder)
    openings = [row["opening"] for row in rows if "opening" in row]
    try:
        stages = tuple(
            Stage(int(n), int(side), int(size)) for n, side, size in openings[-1]["stages"]
        )
        records = [(int(row["step"]), float(row["seconds"])) for row in rows if "seconds" in row]
        held = tuple(Validation(**row["validation"]) for row in rows if "validation" in row)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: no log of a run of this version ({error})") from error
    step = max([0, *(step + 1 for step, _ in records), *(v.step for v in held)])
    return status_of(step, stages, records, held)


def status_of(
    step: int,
    stages: Sequence[Stage],
    records: Sequence[tuple[int, float]],
    held: tuple[Validation, ...] = (),
) -> Status:
    """The status after ``step`` steps; ``records`` are pairs of a step and its seconds."""
    done, whole = pixels_until(step, stages), pixels_until(sum(s.steps for s in stages), stages)
    speeds = [
        (pixels_until(number + 1, stages) - pixels_until(number, stages)) / seconds
        for number, seconds in records[-RECENT:]
        if seconds > 0
    ]
    speed = statistics.median(speeds) if speeds else None
    left = (whole - done) / speed if speed else None
    total = sum(stage.steps for stage in stages)
    return Status(step, total, done, whole, speed, left, held)


def pixels_until(step: int, stages: Sequence[Stage]) -> int:
    """The pixels of the first ``step`` steps."""
    pixels = 0
    for stage in stages:
        taken = min(step, stage.steps)
        pixels += taken * stage.batch_size * stage.crop_size**2
        step -= taken
    return pixels


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The log of the run in ``folder``; a line that a kill cut off is passed over.

    Raises ConfigError: there is none.
    """
    path = folder / LOG_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{folder}: no run of `auravae train`: {LOG_NAME} cannot be read: {reason}"
        ) from error
    rows = []
    for line in lines:
        try:
            row = read_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
