"""How long the work ahead of a run takes: the predictor of ``--dry-run``, asked by the run itself."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from auravae_cli.errors import AuraVaeError
from auravae_cli.forecast.calibrate import measure_speed
from auravae_cli.machine.speeds import Speeds
from auravae_cli.operations.timed_batches import Ahead, operations_of, speed_of


@dataclass(frozen=True)
class Outlook:
    """The seconds of a run, None if unknown, and its strips if it needs them."""

    seconds: float | None
    strips: int


def outlook(ahead: Ahead) -> Outlook:
    """Predict a run from the sizes of its first pictures; a speed that is not known is measured."""
    codec, known = ahead.codec, Speeds()
    key = speed_of(ahead.command, codec)
    each = ahead.number / max(1, len(ahead.sizes))
    seconds: float | None = 0.0
    strips = 1
    for (height, width), number in Counter(ahead.sizes).items():
        with suppress(AuraVaeError):  # too large for memory: the run itself reports it
            plans = [codec.autoencoder.plan(part, 1, height, width) for part, _ in ahead.parts]
            strips = max(strips, *(plan.tiles for plan in plans))
            work = operations_of(plans, ahead.parts, 1)
            found = known.seconds(key, work)
            if found is None:
                measure_speed(ahead.command, ahead.parts, codec, known)
                found = known.seconds(key, work)
            seconds = None if None in (found, seconds) else seconds + each * number * found  # type: ignore[operator]
    return Outlook(seconds or None, strips)
