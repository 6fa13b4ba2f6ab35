"""Compare every batch of a real run with its prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from auravae_cli.errors import AuraVaeError
from auravae_cli.machine.meter import Meter
from auravae_cli.machine.progress import Phase, begin, wants_stages
from auravae_cli.machine.speeds import Speeds, speed_key
from auravae_cli.model.planning.run_plan import Plan
from auravae_cli.operations.batches import Loaded, Outcome, Ready
from auravae_cli.operations.outputs import Job, is_pipe, to_be_made

if TYPE_CHECKING:
    from auravae_cli.model.codec import Codec

Parts = tuple[tuple[str, float], ...]  # parts of a network, and how often each runs on a picture

ENCODE_PARTS: Parts = (("encoder", 1),)
DECODE_PARTS: Parts = (("decoder", 1),)


def roundtrip_parts(flips: int) -> Parts:
    """Return the parts of a round trip, which also decodes every flipped latent."""
    return ("encoder", 1), ("decoder", 1 + flips)


def speed_of(command: str, codec: Codec) -> str:
    """Return the key of the speed of a command with a loaded model."""
    return speed_key(
        command, codec.space.weights_sha256, codec.device, codec.compute_dtype, codec.engine
    )


_VERBS = {"encode": "encoding", "decode": "decoding", "roundtrip": "encoding and decoding"}
LOOKED_AT = 200  # jobs whose sizes are read before a run, to say how long it takes


@dataclass(frozen=True)
class Ahead:
    """The work of a run, as far as it is known at the start; a `Progress` hears it.

    ``sizes`` are the padded (height, width) of the first pictures, ``number`` is how many there are;
    ``command``, ``parts`` and ``codec`` are what runs on each. ``workers`` says who shares the work, if several
    do, and ``share`` is the part of the time of this process alone that they need.
    """

    command: str
    parts: Parts
    codec: Codec
    sizes: tuple[tuple[int, int], ...]
    number: int
    workers: str = ""
    share: float = 1.0

    @property
    def pixels(self) -> float:
        """How many pixels all pictures have, by the sizes that are known."""
        known = sum(height * width for height, width in self.sizes)
        return known * self.number / max(1, len(self.sizes))


@dataclass
class Stopwatch:
    """Measures batches of a ``command`` that runs ``parts`` of a model ``times`` times each.

    Seconds are from the prepared input to the written result; memory is the peak beside the weights.
    A ``progress`` that listens hears of each batch before it runs, with the seconds predicted.
    """

    command: str
    parts: Parts
    progress: Any = None
    speeds: Speeds = field(default_factory=Speeds)

    def look_ahead(
        self,
        codec: Codec,
        jobs: Sequence[Job],
        size_of: Callable[[Job], tuple[int, int]],
        overwrite: bool = True,
    ) -> None:
        """Tell a progress that listens of the work ahead: all jobs, or those without a result.

        ``size_of`` returns the padded (height, width) of a job, and may raise AuraVaeError.
        """
        if not wants_stages(self.progress):
            return
        todo, sizes = to_be_made(jobs, overwrite), []
        for job in todo[:LOOKED_AT]:
            if job.source.path is not None and not is_pipe(job.source.path):
                with suppress(AuraVaeError):  # the run itself reports it
                    sizes.append(size_of(job))
        begin(self.progress, Ahead(self.command, self.parts, codec, tuple(sizes), len(todo)))

    def run(
        self,
        work: Callable[[Sequence[Ready[Loaded]]], list[Outcome]],
        batch: Sequence[Ready[Loaded]],
    ) -> list[Outcome]:
        """Run ``work`` on a batch of equal padded pixels, and add the measurement to its outcomes."""
        codec, size = batch[0].codec, (len(batch), *batch[0].pixels)
        assert codec is not None
        plans: list[Plan] = []
        with suppress(AuraVaeError):  # the run itself reports it
            plans = [codec.autoencoder.plan(part, *size) for part, _ in self.parts]
        key = speed_of(self.command, codec)
        operations = operations_of(plans, self.parts, size[0])
        predicted = self.speeds.seconds(key, operations)
        more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
        text = f"{_VERBS[self.command]} {batch[0].job.source.relative}{more}"
        begin(self.progress, Phase(text, predicted))
        with Meter(codec.device) as meter:
            outcomes = work(batch)
        if plans and all(outcome.status == "done" for outcome in outcomes):
            self.speeds.record(key, operations, meter.seconds)
        facts: dict[str, Any] = {
            "tiles": max((plan.tiles for plan in plans), default=1),
            "predicted": numbers(predicted, size[0], max((p.memory for p in plans), default=None)),
            "measured": numbers(meter.seconds, size[0], meter.memory),
        }
        return [replace(outcome, details=outcome.details | facts) for outcome in outcomes]


def operations_of(plans: Sequence[Plan], parts: Parts, number: int) -> int:
    """Return the operations on ``number`` pictures; plans may be for fewer, if not all fit together."""
    return sum(
        round(plan.flops // plan.batch * number * times)
        for plan, (_, times) in zip(plans, parts, strict=False)
    )


def numbers(
    seconds: float | None, number: int, memory: int | None
) -> dict[str, float | int | None]:
    """Return JSON fields: the seconds per picture of ``number``, the bytes of all."""
    each = None if seconds is None else round(seconds / number, 4)
    return {"seconds": each, "memory": memory}
