"""Run many jobs: equal shapes together, and a bad file fails alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from auravae_cli.errors import (
    AuraVaeError,
    ModelError,
    NoRoomError,
    TooManyFailuresError,
    reason_of,
)
from auravae_cli.machine.prefetch import DECODED_BYTES, prefetch
from auravae_cli.operations.outputs import Job

if TYPE_CHECKING:
    from auravae_cli.model.codec import Codec
    from auravae_cli.operations.timed_batches import Stopwatch

Loaded = TypeVar("Loaded")
Item = TypeVar("Item")
Result = TypeVar("Result")
_FEWEST_INPUTS = 100  # before a percentage of failures means anything
PENDING_BATCHES = 4  # unfinished batches that may wait for pictures of their shape


@dataclass(frozen=True)
class Outcome:
    """The outcome of one input: ``done``, ``skipped`` (finished before) or ``failed``.

    ``details`` are facts for people and machines: shapes, numbers, seconds.
    """

    source: str
    status: str
    output: str | None = None
    reason: str | None = None
    notices: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready(Generic[Loaded]):
    """A job whose input has been read.

    Up to ``batch_size`` jobs with equal ``codec`` and ``pixels``, the padded (height, width), run
    together. ``size`` is the memory of the content in bytes, since many may be waiting.
    """

    job: Job
    content: Loaded
    codec: Codec | None = None
    pixels: tuple[int, int] = (0, 0)
    batch_size: int = 1
    size: int = 0


class Work(Protocol[Loaded]):
    """What to do with every input."""

    def read(self, job: Job) -> Ready[Loaded] | Outcome:
        """Return the input in the form that `finish` needs, or an outcome if there is nothing to do."""

    def finish(self, batch: Sequence[Ready[Loaded]]) -> list[Outcome]:
        """Write the results of some inputs; return an outcome for each."""


@dataclass(frozen=True)
class FailureLimit:
    """How many inputs may fail before a run stops: a number, or a share of those tried."""

    count: int | None = None
    share: float | None = None

    def check(self, tried: int, failed: int) -> None:
        """Raise TooManyFailuresError if more have failed."""
        over = self.count is not None and failed > self.count
        if self.share is not None and tried >= _FEWEST_INPUTS:
            over |= failed > self.share * tried
        if over:
            raise TooManyFailuresError(
                f"{failed} of {tried} inputs failed, more than --max-failures allows; finished "
                "work is kept"
            )


def try_batch(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    failed: Callable[[Item, Exception], Result],
) -> list[Result]:
    """Run ``work`` on a batch. If that fails, run it on each item, so that only the culprit fails.

    What fails is the user's input, or too large for memory. A ModelError is raised, as is a NoRoomError.
    """
    try:
        return list(work(items))
    except (ModelError, NoRoomError):
        raise
    except (AuraVaeError, MemoryError) as error:
        if len(items) == 1:
            return [failed(items[0], error)]
    # outside the handler, so that nothing keeps the memory of the failed run
    return [result for item in items for result in try_batch([item], work, failed)]


def failed(source: str, reason: str, output: str | None = None) -> Outcome:
    """Return the outcome of a failed input."""
    return Outcome(source, "failed", output, reason)


def failure(job: Job, error: Exception) -> Outcome:
    """Return the outcome of a job that raised an error."""
    return failed(job.source.name, reason_of(error), _name(job))


def done(job: Job, notices: tuple[str, ...] = (), **details: Any) -> Outcome:
    """Return the outcome of a job whose result is written."""
    return Outcome(job.source.name, "done", _name(job), None, notices, details)


def skipped(job: Job) -> Outcome:
    """Return the outcome of a job whose result exists already."""
    return Outcome(job.source.name, "skipped", _name(job), "up to date")


def run(
    jobs: Iterable[Job],
    work: Work[Loaded],
    watch: Stopwatch | None = None,
    cost: Callable[[Job], int] | None = None,
) -> Iterator[Outcome]:
    """Read every input and finish equal ones in batches; yield an outcome for each, as it comes.

    If ``cost`` returns the bytes that a job will take, threads read inputs ahead. ``watch`` times the
    batches. An error in the user's input fails only its job. A ModelError is raised.
    """

    def read(job: Job) -> Ready[Loaded] | Outcome:
        return try_batch([job], lambda jobs: [work.read(jobs[0])], failure)[0]

    finish = work.finish if watch is None else partial(watch.run, work.finish)
    loaded = (
        map(read, jobs) if cost is None else prefetch(jobs, read, cost=cost, budget=DECODED_BYTES)
    )
    try:
        for batch in group_equal(loaded, _group, _size, DECODED_BYTES):
            yield from [item for item in batch if isinstance(item, Outcome)]
            ready = [item for item in batch if isinstance(item, Ready)]
            if ready:
                yield from try_batch(ready, finish, lambda item, error: failure(item.job, error))
    finally:  # once, however it ends
        if watch is not None:
            watch.speeds.save()


def _group(item: Ready[Any] | Outcome) -> tuple[Hashable, int] | None:
    if isinstance(item, Outcome):
        return None
    return (item.codec and item.codec.space, item.pixels), item.batch_size


def _size(item: Ready[Any] | Outcome) -> int:
    return item.size if isinstance(item, Ready) else 0


def group_equal(
    items: Iterable[Item],
    group_of: Callable[[Item], tuple[Hashable, int] | None],
    cost: Callable[[Item], int] = lambda item: 0,
    budget: int = 0,
) -> Iterator[list[Item]]:
    """Yield the items in batches of equal key, each as soon as it is full; the order determines the batches.

    ``group_of`` returns an item's key and the size of its batch; None passes it on by itself.
    At most `PENDING_BATCHES` batches of items wait for others of their key, and at most ``budget`` of
    cost.
    """
    waiting: defaultdict[Hashable, list[Item]] = defaultdict(list)

    def is_full(batch_size: int) -> bool:
        items = [item for batch in waiting.values() for item in batch]
        return len(items) >= PENDING_BATCHES * batch_size or sum(map(cost, items)) > budget > 0

    for item in items:
        group = group_of(item)
        if group is None:
            yield [item]
            continue
        key, batch_size = group
        waiting[key].append(item)
        if len(waiting[key]) >= batch_size:
            yield waiting.pop(key)
        while waiting and is_full(batch_size):
            largest = max(
                waiting, key=lambda key: (sum(map(cost, waiting[key])), len(waiting[key]))
            )
            yield waiting.pop(largest)
    yield from waiting.values()


def limited(outcomes: Iterable[Outcome], limit: FailureLimit) -> Iterator[Outcome]:
    """Yield the outcomes, then raise TooManyFailuresError if there are too many failures."""
    failed = 0
    for tried, outcome in enumerate(outcomes, 1):
        yield outcome
        failed += outcome.status == "failed"
        limit.check(tried, failed)


def _name(job: Job) -> str | None:
    return None if job.output is None else str(job.output)
