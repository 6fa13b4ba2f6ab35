"""Several processes measure what one does, and a run goes on from there."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from auravae_cli.errors import ComputeError, UsageError, WeightsError
from auravae_cli.evaluation import processes
from auravae_cli.evaluation.processes import Judge, Task, make_tasks, measure_by_processes
from auravae_cli.evaluation.run import EvalOptions
from auravae_cli.evaluation.session import EvaluationFiles, evaluate
from auravae_cli.model.codec import load_codec

FEW = EvalOptions(flips=2, sweeps=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(6):
        pixels = random.integers(0, 256, (24, 24 + 8 * number, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(b"no picture")
    return folder


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_several_measure_what_one_does(photos, tmp_path):
    one = evaluate(str(photos), ["linear"], lpips="none", options=FEW, symmetrized=True)
    run = EvaluationFiles(tmp_path / "run", overwrite=True)
    two = evaluate(
        str(photos),
        ["linear"],
        lpips="none",
        options=FEW,
        symmetrized=True,
        processes=2,
        files=run,
    )
    assert without_time(two.rows) == without_time(one.rows) and len(two.rows) == 12
    assert two.failures == one.failures and len(two.failures) == 1
    steps = []
    for number in (1, 3):  # nothing is left to measure, so no process is started
        evaluate(
            str(photos),
            ["linear"],
            lpips="none",
            options=FEW,
            processes=number,
            files=run,
            progress=lambda step, done, total: steps.append(step),
        )
    assert not [step for step in steps if isinstance(step, tuple)]


def test_tasks_are_shards_with_their_samples(photos, tmp_path):
    result = []

    def watched(evaluation, survey, setup, number):
        result.append((make_tasks(evaluation, survey), survey, setup))
        yield from evaluation.run(survey)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auravae_cli.evaluation.session.measure_by_processes", watched)
        evaluate(str(photos), ["linear"], lpips="none", options=FEW, processes=2)
    tasks, survey, setup = result[0]
    assert sorted(name for task in tasks for name in task.lacking) == sorted(survey.pictures)
    assert sum(len(task.flips) for task in tasks) == 2
    assert [len(task.sweeps) for task in tasks] == [1] + [0] * (len(tasks) - 1)
    assert len(tasks) > 3 and setup.models == ("linear",)
    gone = Task(tasks[0].shard, {"gone.png": ["linear"]}, frozenset(), frozenset())
    (failure,) = Judge(setup).measure(gone)
    assert failure.picture == "gone.png" and "not found by the process" in failure.reason


class Ending:
    """A task that ends the process that gets it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_process_that_ends_is_told(photos, monkeypatch):
    monkeypatch.setattr(processes, "make_tasks", lambda evaluation, survey: [Ending()])
    with pytest.raises(ComputeError, match="one of 2 processes ended before its time"):
        evaluate(str(photos), ["linear"], lpips="none", options=FEW, processes=2)


def test_a_model_that_a_process_cannot_load_is_told(photos, monkeypatch):
    def gone(evaluation, survey, setup, number):
        missing = replace(setup, models=("no such model",))
        yield from measure_by_processes(evaluation, survey, missing, 1)

    monkeypatch.setattr("auravae_cli.evaluation.session.measure_by_processes", gone)
    with pytest.raises(WeightsError, match="no such model"):
        evaluate(str(photos), ["linear"], lpips="none", options=FEW, processes=2)


def test_processes_need_names_and_share_gpus(photos, monkeypatch):
    with pytest.raises(UsageError, match="by name"):
        evaluate(str(photos), [load_codec("linear")], lpips="none", options=FEW, processes=2)
    assert processes._devices("cpu", 3) == [None] * 3
    monkeypatch.setattr("auravae_cli.model.placement.may_have_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert processes._devices("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert processes._devices("cuda:1", 2) == [None, None]
