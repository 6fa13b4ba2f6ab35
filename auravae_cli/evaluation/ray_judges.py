"""An evaluation on a Ray cluster: the tasks of `evaluation.processes`, by actors that load the models once.

Inputs and weights have to be where every worker finds them under the same name. A task whose worker dies goes to
another one; the process that was started writes, so nothing measured is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from auravae_cli.errors import AuraVaeError, ComputeError, DeviceError
from auravae_cli.evaluation.processes import Judge, Setup, Task, make_tasks
from auravae_cli.evaluation.run import Evaluation, Step, Survey
from auravae_cli.operations.ray_runner import ATTEMPTS, brief, connect


def measure_by_ray(
    evaluation: Evaluation, survey: Survey, setup: Setup, address: str | None
) -> Iterator[Step]:
    """Yield what a cluster measures, in any order, and keep every row.

    There is one worker for each GPU, or for each CPU if there is none: on the cluster at ``address``, or on one
    that is started on this machine.

    Raises:
        DeviceError: Ray is not installed, or the cluster cannot be reached. ModelError: a model cannot run.
        ComputeError: a worker died again and again; what was measured is kept.
    """
    yield from evaluation.unreadable(survey)
    tasks = make_tasks(evaluation, survey)
    if not tasks:
        return
    ray = connect(address)
    try:
        for step in _measured(ray, tasks, setup):
            yield evaluation.keep(step)
    except ray.exceptions.RayError as error:
        raise ComputeError(
            f"a worker on Ray died {ATTEMPTS} times: {brief(error)}; with -o, the same command continues from here"
        ) from error
    finally:
        ray.shutdown()


def _measured(ray: Any, tasks: Sequence[Task], setup: Setup) -> Iterator[Step]:
    resources, device = ray.cluster_resources(), setup.loading.get("device", "auto")
    on_gpus = device.startswith("cuda") or (device == "auto" and "GPU" in resources)
    if on_gpus and "GPU" not in resources:
        raise DeviceError(f"--device {device}: Ray finds no GPU on the cluster")
    if device.startswith("cuda"):  # Ray chooses the GPU, and its worker sees no other
        loading = setup.loading.copy()
        loading["device"] = "cuda"
        setup = replace(setup, loading=loading)
    number = min(len(tasks), max(1, int(resources.get("GPU" if on_gpus else "CPU", 1))))
    # A worker that died is not restarted but replaced, visibly here.
    judge = ray.remote(Judge).options(num_cpus=1, num_gpus=int(on_gpus), max_restarts=0)
    sent = ray.put(setup)
    idle, waiting = [judge.remote(sent) for _ in range(number)], deque((task, 1) for task in tasks)
    running: dict[Any, tuple[Any, Task, int]] = {}
    while waiting or running:
        while waiting and idle:
            worker, (task, attempt) = idle.pop(), waiting.popleft()
            running[worker.measure.remote(task)] = worker, task, attempt
        (done,), _ = ray.wait([*running], num_returns=1)
        worker, task, attempt = running.pop(done)
        try:
            steps = ray.get(done)
        except ray.exceptions.RayActorError:  # it died, lost its node, was out of memory
            if attempt == ATTEMPTS:
                raise
            idle.append(judge.remote(sent))
            waiting.appendleft((task, attempt + 1))
            continue
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, AuraVaeError):
                raise error.cause from None
            raise RuntimeError(f"a worker met a bug: {error}") from error
        idle.append(worker)
        yield from steps
