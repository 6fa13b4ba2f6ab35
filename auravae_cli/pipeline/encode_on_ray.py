"""The same shards on a Ray cluster: one task a shard, by actors that load the model once.

The manifests hold the truth, so nothing that Ray loses is lost: a shard whose worker died is done
again by another, and gives the same bytes.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

from auravae_cli.errors import AuraVaeError, DeviceError, ModelError
from auravae_cli.models import find_weights
from auravae_cli.pipeline.batches import FailureLimit
from auravae_cli.pipeline.encode_shard import RowDone, ShardOptions
from auravae_cli.pipeline.encode_store import ShardOutcome, Work, encode_shard
from auravae_cli.pipeline.rows import Older
from auravae_cli.pipeline.scratch import scratch_folder
from auravae_cli.pipeline.shards import InputShard
from auravae_cli.storage import Storage, open_storage
from auravae_cli.store import Settings

ATTEMPTS = 5  # at a shard whose worker dies


class ShardWorker:
    """What runs on the cluster: a model, and the shards that come to it."""

    def __init__(self, model: str, device: str, dtype: str) -> None:
        from auravae_cli.codec import load_codec

        self._codec = load_codec(model, parts=("encoder",), device=device, dtype=dtype)

    def facts(self) -> tuple[Any, str]:
        """The latent space, and what the network computes in."""
        return self._codec.space, self._codec.compute_dtype

    def encode(
        self,
        shard: InputShard,
        old: Older,
        root: str,
        settings: Settings,
        options: ShardOptions,
    ) -> ShardOutcome:
        """Encode a shard and commit it."""
        if self._codec.space != settings.space:
            raise ModelError("this worker has other weights than the others: check its model file")
        storage = open_storage(root)
        with scratch_folder(storage) as scratch:
            for step in encode_shard(shard, old, storage, settings, self._codec, options, scratch):
                if isinstance(step, ShardOutcome):
                    return step
                if not isinstance(step, RowDone):
                    return step()
        raise AssertionError("a shard ends with a commit or a failure")


class RayEngine:
    """Encodes shards on a Ray cluster: one at ``address``, else one started on this machine.

    There is one worker for each GPU, or for each CPU where there is none. Closing it lets go.

    Raises:
        DeviceError: Ray is not installed, or the cluster cannot be reached. ModelError.
    """

    def __init__(self, model: str, device: str, dtype: str, address: str | None) -> None:
        find_weights(model)  # says what is wrong before a cluster is started
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise DeviceError("--engine ray needs Ray: pip install 'auravae[ray]'") from None
        self._ray = ray
        own = {} if address else {"include_dashboard": False}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DeviceError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        resources = ray.cluster_resources()
        gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
        self._free = max(1, gpus or int(resources.get("CPU", 1)))
        self._actor = ray.remote(ShardWorker).options(
            num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1, max_task_retries=0
        )
        self._arguments = model, device, dtype
        self._idle = [self._actor.remote(*self._arguments)]
        try:
            self.space, self.compute_dtype = ray.get(self._idle[0].facts.remote())
        except ray.exceptions.RayError as error:
            ray.shutdown()
            raise ModelError(f"the model cannot be loaded on the cluster: {error}") from error

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def encode(
        self,
        work: Iterable[Work],
        storage: Storage,
        settings: Settings,
        options: ShardOptions,
        limit: FailureLimit,
    ) -> Iterator[RowDone | ShardOutcome]:
        """Like `LocalEngine.encode`, without steps within a shard; outcomes as they come."""
        under_way: dict[Any, tuple[Any, tuple[InputShard, Older], int]] = {}
        tried = failed = 0

        def submit(worker: Any, item: tuple[InputShard, Older], attempt: int) -> None:
            task = worker.encode.remote(*item, storage.root, settings, options)
            under_way[task] = worker, item, attempt

        def settle() -> ShardOutcome | None:
            (task,), _ = self._ray.wait(list(under_way), num_returns=1)
            worker, item, attempt = under_way.pop(task)
            try:
                outcome: ShardOutcome = self._ray.get(task)
            except self._ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, AuraVaeError) else error) from None
            except self._ray.exceptions.RayActorError as error:
                if attempt < ATTEMPTS:  # the actor is started again by Ray, on whatever is left
                    submit(worker, item, attempt + 1)
                    return None
                outcome = ShardOutcome(
                    item[0].name,
                    "failed",
                    source_size=item[0].size,
                    reason=f"its worker died {attempt} times, the last time with: {error}",
                )
            self._idle.append(worker)
            return outcome

        items = iter(work)
        item = next(items, None)
        while item is not None or under_way:
            if isinstance(item, ShardOutcome):
                outcome: ShardOutcome | None = item
                item = next(items, None)
            elif item is not None and (worker := self._take_worker(len(under_way))) is not None:
                submit(worker, item, 1)
                item, outcome = next(items, None), None
            else:
                outcome = settle()
            if outcome is not None:
                yield outcome
                if outcome.status == "done":
                    tried, failed = (
                        tried + outcome.rows + outcome.failures,
                        failed + outcome.failures,
                    )
                    limit.check(tried, failed)

    def _take_worker(self, busy: int) -> Any | None:
        """A worker without a shard, a new one while the cluster has room, or None."""
        if self._idle:
            return self._idle.pop()
        return self._actor.remote(*self._arguments) if busy < self._free else None
