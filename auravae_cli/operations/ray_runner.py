"""Encode shards on a Ray cluster: one task per shard, by actors that load the model once.

The manifests are the only state, so nothing is lost with Ray: if a shard's worker dies, another worker
encodes it again, with the same bytes.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from auravae_cli.errors import AuraVaeError, DeviceError, ModelError
from auravae_cli.files.scratch import scratch_folder
from auravae_cli.files.storage import Storage, open_storage
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.model.codec import Codec, load_codec
from auravae_cli.model.spec.registry import find_weights
from auravae_cli.operations.batches import FailureLimit
from auravae_cli.operations.encode_shard import RowDone, ShardOptions
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.local_runner import encode_shard
from auravae_cli.operations.store_work import Work
from auravae_cli.store.commit import PreviousShard, ShardOutcome
from auravae_cli.store.settings import StoreSettings

ATTEMPTS = 5  # for a shard whose worker dies, and for starting workers in a row
_PATIENCE = 10.0  # seconds for an address to answer, since Ray itself waits many minutes
_ADVICE = " (RAY_AUTH_MODE here has to be that of the cluster: token or disabled)"
_OBJECT_STORE_BYTES = 128 << 20  # of our own cluster; only arguments go through it


class ShardWorker:
    """The worker on the cluster: a model that encodes the shards it gets."""

    def __init__(
        self, model: str, device: str, dtype: str, memory: int | None, symmetrize: bool | str
    ) -> None:
        self._arguments = model, device, dtype, memory, symmetrize

    @cached_property
    def _codec(self) -> Codec:
        # Not in the constructor, whose errors reach the driver only as text.
        model, device, dtype, memory, symmetrize = self._arguments
        return load_codec(
            model,
            parts=("encoder",),
            device=device,
            dtype=dtype,
            memory=memory,
            symmetrize=symmetrize,
        )

    def facts(self) -> tuple[LatentSpace, str, str | None, str]:
        """The latent space, what the network computes in, by whose kernels, and how flips are made exact.

        Loads the model.
        """
        codec = self._codec
        return codec.space, codec.compute_dtype, codec.kernels, codec.symmetry

    def encode(
        self,
        shard: InputShard,
        old: PreviousShard,
        root: str,
        settings: StoreSettings,
        options: ShardOptions,
    ) -> ShardOutcome:
        """Encode a shard and commit it. Raises ModelError, OutputError or StoreError."""
        space, compute_dtype, kernels, symmetry = self.facts()
        own = replace(
            settings, space=space, compute_dtype=compute_dtype, kernels=kernels, symmetry=symmetry
        )
        if own.as_known_to(settings) != settings:
            host = socket.gethostname()
            raise ModelError(
                f"{host} has other weights, or computes in another type or by other kernels, than the rest"
            )
        storage = open_storage(root)
        with scratch_folder(storage) as scratch:
            for step in encode_shard(shard, old, storage, settings, self._codec, options, scratch):
                if not isinstance(step, RowDone):
                    return step if isinstance(step, ShardOutcome) else step()
        raise AssertionError("a shard ends with a commit or a failure")


@dataclass(frozen=True)
class _Attempt:
    shard: InputShard
    old: PreviousShard
    number: int = 1


class RayRunner:
    """Encodes shards on a Ray cluster: the one at ``address``, or one started on this machine.

    There is one worker per GPU, or per CPU if there is none; features may take ``memory`` bytes in each.
    Closing it disconnects.

    Raises:
        DeviceError: Ray is not installed, or the cluster cannot be reached.
        ModelError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        device: str,
        dtype: str,
        memory: int | None,
        symmetrize: bool | str,
        address: str | None,
    ) -> None:
        find_weights(model)  # reports errors before a cluster is started
        self._ray = connect(address)
        resources = self._ray.cluster_resources()
        on_gpus = device.startswith("cuda") or (device == "auto" and "GPU" in resources)
        if on_gpus and address is None and "GPU" not in resources:
            raise DeviceError(f"--device {device}: Ray finds no GPU on this machine")
        self._kind = "GPU" if on_gpus else "CPU"
        # Asking for one more than fits makes an autoscaler act.
        self._spare = int(address is not None)
        # Ray chooses the GPU, and its worker sees no other.
        device = "cuda" if device.startswith("cuda") else device
        self._arguments = model, device, dtype, memory, symmetrize
        # A worker that died is not restarted but replaced, where there is room, and visibly here.
        self._actor = self._ray.remote(ShardWorker).options(
            num_cpus=1, num_gpus=int(on_gpus), max_restarts=0, max_task_retries=0
        )
        first = self._actor.remote(*self._arguments)
        try:
            facts = self._get(first.facts.remote())
            self.space, self.compute_dtype, self.kernels, self.symmetry = facts
        except self._ray.exceptions.RayError as error:
            advice = _ADVICE * bool(address)
            raise ModelError(f"no worker starts on Ray: {brief(error)}{advice}") from error
        self._idle = [first]
        self._starting: dict[Any, Any] = {}  # the future of a worker's facts => the worker
        self._busy: dict[
            Any, tuple[Any, _Attempt]
        ] = {}  # the future of an outcome => who does what
        self._lost_starts = 0
        self._count_room()

    def __enter__(self) -> RayRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    @property
    def workers(self) -> str:
        """Who shares the work."""
        return f"{self._room} workers of Ray"

    @property
    def share(self) -> float:
        """The part of this machine's time that the workers need: each has one core."""
        return (os.cpu_count() or 1) / self._room

    def model_here(self) -> Codec | None:
        """Load the model in this process, to predict with; None for GPUs, whose speed is not known here."""
        model, _, dtype, memory, symmetrize = self._arguments
        if self._kind == "GPU":
            return None
        return load_codec(
            model,
            parts=("encoder",),
            device="cpu",
            dtype=dtype,
            memory=memory,
            symmetrize=symmetrize,
        )

    def encode(
        self,
        work: Iterable[Work],
        storage: Storage,
        settings: StoreSettings,
        options: ShardOptions,
        limit: FailureLimit,
    ) -> Iterator[RowDone | ShardOutcome]:
        """Encode like `LocalRunner.encode`, without steps within a shard; yield outcomes as they come."""
        if self._kind == "CPU" and options.workers is None:
            options = replace(options, workers=1)  # each core has its own worker
        items, waiting = iter(work), deque[_Attempt]()
        more, tried, failed = True, 0, 0
        while more or waiting or self._busy:
            outcome = None
            has_room = len(self._idle) + len(self._starting) + len(self._busy) < self._room
            if waiting and self._idle:
                self._submit(waiting.popleft(), storage, settings, options)
            elif len(waiting) > len(self._starting) and has_room:
                worker = self._actor.remote(*self._arguments)
                self._starting[worker.facts.remote()] = worker
            elif more and (len(waiting) < len(self._idle) + len(self._starting) or has_room):
                item = next(items, None)
                if isinstance(item, ShardOutcome):
                    outcome = item
                elif item is not None:
                    waiting.append(_Attempt(*item))
                more = item is not None
            else:
                outcome = self._settle(waiting)
            if outcome is not None:
                yield outcome
                if outcome.status == "done":
                    tried += outcome.rows + outcome.failures
                    failed += outcome.failures
                    limit.check(tried, failed)

    def _submit(
        self, attempt: _Attempt, storage: Storage, settings: StoreSettings, options: ShardOptions
    ) -> None:
        worker = self._idle.pop()
        task = worker.encode.remote(attempt.shard, attempt.old, storage.root, settings, options)
        self._busy[task] = worker, attempt

    def _settle(self, waiting: deque[_Attempt]) -> ShardOutcome | None:
        """Wait for the first event: a worker that is ready, an outcome, or a loss."""
        (task,), _ = self._ray.wait([*self._busy, *self._starting], num_returns=1)
        self._count_room()
        worker, attempt = (
            self._busy.pop(task) if task in self._busy else (self._starting.pop(task), None)
        )
        try:
            result = self._get(task)
        except self._ray.exceptions.RayError as error:  # died, lost its node, out of memory
            self._ray.kill(worker)  # it may only be unreachable
            if attempt is None:
                self._lost_starts += 1
                if self._lost_starts == ATTEMPTS:
                    raise ModelError(f"workers do not start: {brief(error)}") from error
            elif attempt.number < ATTEMPTS:
                waiting.appendleft(replace(attempt, number=attempt.number + 1))
            else:
                reason = f"its worker died {ATTEMPTS} times: {brief(error)}"
                shard = attempt.shard
                return ShardOutcome(shard.name, "failed", source_size=shard.size, reason=reason)
            return None
        self._idle.append(worker)
        self._lost_starts = 0
        return None if attempt is None else result

    def _get(self, task: Any) -> Any:
        """Return a worker's result, or raise its error."""
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, AuraVaeError):
                raise error.cause from None
            raise RuntimeError(f"a worker met a bug: {error}") from error

    def _count_room(self) -> None:
        """Count how many workers there may be; clusters grow and shrink."""
        room = int(self._ray.cluster_resources().get(self._kind, 0))
        self._room = max(1, room + self._spare)


def connect(address: str | None) -> Any:
    """Return Ray, connected and silent. Raises DeviceError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics
    try:
        ray = importlib.import_module("ray")
        worker = importlib.import_module("ray._private.worker")
    except ImportError:
        raise DeviceError("--runner ray needs Ray: pip install ray") from None
    # Notices of dead workers go to stdout whatever init is told, and no public switch stops that.
    worker._worker_logs_enabled = False  # type: ignore[attr-defined]
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    elif not address.startswith("ray://"):  # workers find modules in a checkout, as we do
        paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        options["job_config"] = ray.job_config.JobConfig(
            code_search_path=[str(Path(path).absolute()) for path in paths]
        )
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        ray.init(address or "local", **options)
    except (OSError, ImportError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        place = f"at {address}" if address else "on this machine"
        raise DeviceError(f"no Ray cluster {place}: {error}{_ADVICE * bool(address)}") from error
    return ray


def brief(error: Exception) -> str:
    """Return the last line of a Ray error, which says why."""
    return str(error).strip().rpartition("\n")[2]
