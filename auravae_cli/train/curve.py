"""The learning curve of a run, from its log: the cost of each validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auravae_cli.errors import ConfigError
from auravae_cli.train.recipe import Stage
from auravae_cli.train.status import LOG_NAME, Validation, pixels_until, read_rows


@dataclass(frozen=True)
class CurvePoint:
    """A validation, and the hours and pixels until then."""

    hours: float
    pixels: int
    validation: Validation


def read_curve(folder: Path) -> tuple[CurvePoint, ...]:
    """Return the validations of the run in ``folder``, in order.

    Hours are those of the steps only; each logged step counts for those since the previous one. What was
    computed twice, after a kill, counts twice in hours and once in pixels.

    Raises ConfigError: there is no log, or it has another version.
    """
    rows = read_rows(folder)
    points: list[CurvePoint] = []
    seconds, last, base, start = 0.0, 0, 0, 0
    stages: Sequence[Stage] = ()

    def pixels(step: int) -> int:
        return base + pixels_until(step, stages) - pixels_until(start, stages)

    try:
        for row in rows:
            if opening := _opening(row):
                step, new = opening
                base = pixels(step) if stages else pixels_until(step, new)
                start, last, stages = step, step, new
                points = [point for point in points if point.validation.step <= start]
            elif "seconds" in row:
                step = int(row["step"]) + 1
                seconds += float(row["seconds"]) * max(0, step - last)
                last = step
            elif "validation" in row:
                held = Validation(**row["validation"])
                if points and points[-1].validation.step == held.step:
                    points.pop()
                points.append(CurvePoint(seconds / 3600, pixels(held.step), held))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{folder / LOG_NAME}: no log of a run of this version ({error})"
        ) from error
    return tuple(points)


def _opening(row: dict[str, Any]) -> tuple[int, tuple[Stage, ...]] | None:
    """Return the first step of a part of the run, and its stages; None for any other row."""
    opening = row.get("opening", {})
    if "stages" not in opening:  # older logs
        return None
    return int(opening["step"]), tuple(
        Stage(int(steps), int(side), int(size)) for steps, side, size in opening["stages"]
    )
