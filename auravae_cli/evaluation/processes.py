"""Several processes share an evaluation: each loads the models once, and measures the shards it gets.

::

    survey --lacking rows, by shard--> tasks --one per idle process--> rows --> the one results file

The first process alone writes, so results merge as they come and a run resumes as with one process.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from auravae_cli.errors import ComputeError
from auravae_cli.evaluation.legibility import load_reader
from auravae_cli.evaluation.models import load_models, metric_device
from auravae_cli.evaluation.results import Results
from auravae_cli.evaluation.rfid import load_inception
from auravae_cli.evaluation.run import EvalOptions, Evaluation, PictureFailure, Step, Survey
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.loading import Loading

AHEAD = 2  # tasks that wait for each process


@dataclass(frozen=True)
class Setup:
    """Everything that a process needs to judge: plain data, since it is sent to it.

    ``lpips`` is the file of its weights, or None for those of the package, where ``has_lpips``.
    """

    models: tuple[str, ...]
    symmetrized: bool
    posterior: str
    loading: Loading
    options: EvalOptions
    shards: tuple[InputShard, ...]
    has_lpips: bool
    lpips: str | None
    rfid: str | None
    text: bool


@dataclass(frozen=True)
class Task:
    """A shard, by its place, the labels that each of its pictures lacks, and the samples among them."""

    shard: int
    lacking: Mapping[str, list[str]]
    flips: frozenset[str]
    sweeps: frozenset[str]


class Judge:
    """One process's part: models that measure the tasks it gets."""

    def __init__(self, setup: Setup, device: str | None = None) -> None:
        self._setup, self._device = setup, device

    @cached_property
    def _evaluation(self) -> Evaluation:
        # Not in the constructor, whose errors reach the first process only as text.
        setup, loading = self._setup, self._setup.loading.copy()
        if self._device is not None:
            loading["device"] = self._device
        models = load_models(setup.models, setup.symmetrized, setup.posterior, loading)
        place = metric_device(models)
        lpips = None
        if setup.has_lpips:
            from auravae_cli.evaluation.perceptual import load_perceptual

            lpips = load_perceptual(setup.lpips, place)
        inception = load_inception(setup.rfid, place) if setup.rfid else None
        return Evaluation(
            models,
            setup.shards,
            setup.options,
            Results(None),
            lpips,
            inception,
            load_reader() if setup.text else None,
        )

    def measure(self, task: Task) -> list[Step]:
        """Return the rows, with their models' labels, and the failures of a task. Raises ModelError."""
        only = [self._evaluation.shards[task.shard]]
        steps = list(self._evaluation.measure(task.lacking, task.flips, task.sweeps, only))
        found = {s.picture if isinstance(s, PictureFailure) else s[1]["picture"] for s in steps}
        place = socket.gethostname()
        steps += [
            PictureFailure(
                name, None, f"not found by the process on {place} that was to measure it"
            )
            for name in task.lacking
            if name not in found
        ]
        return steps


def make_tasks(evaluation: Evaluation, survey: Survey) -> list[Task]:
    """Return what is to be measured, shard by shard, the largest first."""
    options, lacking = evaluation.options, evaluation.lacking(survey)
    flips, sweeps = survey.chosen(options.flips), survey.chosen(options.sweeps)
    tasks = []
    for place, names in enumerate(survey.shards):
        mine = {name: lacking[name] for name in names if name in lacking}
        digests = frozenset(survey.pictures[name] for name in mine)
        if mine:
            tasks.append(Task(place, mine, flips & digests, sweeps & digests))
    return sorted(tasks, key=lambda task: (-len(task.sweeps), -len(task.lacking), task.shard))


def measure_by_processes(
    evaluation: Evaluation, survey: Survey, setup: Setup, number: int
) -> Iterator[Step]:
    """Yield what ``number`` processes measure, in any order, and keep every row.

    Raises:
        ModelError: a model cannot run.
        ComputeError: a process died, mostly for want of memory; what was measured is kept.
    """
    yield from evaluation.unreadable(survey)
    tasks = make_tasks(evaluation, survey)
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    places = context.SimpleQueue()
    devices = _devices(setup.loading.get("device", "auto"), number)
    for device in devices:
        places.put(device)
    threads = max(1, (os.cpu_count() or 1) // number)
    pool = ProcessPoolExecutor(number, context, _begin, (setup, places, threads))
    waiting, running = iter(tasks), set[Future[list[Step]]]()
    try:
        while True:
            while len(running) < AHEAD * number and (task := next(waiting, None)) is not None:
                running.add(pool.submit(_measure, task))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                for step in future.result():
                    yield evaluation.keep(step)
    except BrokenProcessPool as error:
        raise ComputeError(
            f"one of {number} processes ended before its time, usually because memory ran out: use fewer "
            "(--processes); with -o, the same command continues from here"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def count_devices(loading: Loading, number: int) -> int:
    """Return how many devices ``number`` processes use: a CPU's cores are one."""
    return len(set(_devices(loading.get("device", "auto"), number)))


def _devices(device: str, number: int) -> list[str | None]:
    """The device of each process: all GPUs in turn, where ``device`` leaves that open; else what it says."""
    if device not in ("auto", "cuda"):
        return [None] * number
    from auravae_cli.model.placement import may_have_gpu

    if not may_have_gpu():
        return [None] * number
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{place % count}" if count > 1 else None for place in range(number)]


_judge: list[Judge] = []  # of this process, once it has begun


def _begin(setup: Setup, places: Any, threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch, which a linear model does not need
    _judge.append(Judge(setup, places.get()))


def _measure(task: Task) -> list[Step]:
    return _judge[0].measure(task)
