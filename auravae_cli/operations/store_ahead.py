"""The work ahead of a store, estimated from its first pictures, as a `Progress` hears it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from auravae_cli.errors import AuraVaeError
from auravae_cli.files.storage import Storage
from auravae_cli.images.read import read_size
from auravae_cli.machine.progress import begin, wants_stages
from auravae_cli.model.codec import Codec
from auravae_cli.operations.encode_shard import ShardOptions
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.sample import Sample
from auravae_cli.operations.samples import ShardReader
from auravae_cli.operations.suffixes import is_picture
from auravae_cli.operations.timed_batches import ENCODE_PARTS, Ahead
from auravae_cli.store.names import manifest_name

_LOOKED_AT = 50  # pictures, all of the first shard
_LOOKED_AT_BYTES = 32 << 20


class StoreRunner(Protocol):
    """What encodes shards; ``workers`` and ``share`` are those of `Ahead`."""

    @property
    def workers(self) -> str: ...

    @property
    def share(self) -> float: ...

    def model_here(self) -> Codec | None:
        """Return the model, to predict with; None if its speed cannot be known in this process."""


def tell_ahead(
    shards: Sequence[InputShard],
    storage: Storage,
    runner: StoreRunner,
    options: ShardOptions,
    progress: Any,
) -> None:
    """Tell a progress that listens of the shards that have no manifest yet; others may go on as they are."""
    if not wants_stages(progress):
        return
    present = {entry.name for entry in storage.entries()}
    todo = [shard for shard in shards if shard.files and manifest_name(shard.name) not in present]
    if not todo:
        return
    codec = runner.model_here()
    if codec is None:
        return
    looked_at = list(_first(todo[0]))
    sizes, factor = list[tuple[int, int]](), codec.space.downsampling_factor
    for sample in looked_at:
        with suppress(AuraVaeError):  # the run itself reports it
            found = read_size(sample.content, max_pixels=options.max_pixels)
            sizes.append(options.preparation.padded_size(*found, factor))
    number = _count(todo, looked_at)
    ahead = Ahead("encode", ENCODE_PARTS, codec, tuple(sizes), number, runner.workers, runner.share)
    begin(progress, ahead)


def _first(shard: InputShard) -> Iterator[Sample]:
    """Yield the first pictures of a shard."""
    seen = 0
    with suppress(AuraVaeError, OSError):  # the run itself reports it
        for item in islice(ShardReader(shard), _LOOKED_AT):
            if isinstance(item, Sample):
                yield item
                seen += len(item.content)
            if seen > _LOOKED_AT_BYTES:
                return


def _count(shards: Sequence[InputShard], looked_at: Sequence[Sample]) -> int:
    """Return how many pictures there are; in tars, by their bytes."""
    loose = sum(is_picture(f.key) for shard in shards if not shard.is_tar for f in shard.files)
    tars = sum(shard.size for shard in shards if shard.is_tar)
    each = sum(len(sample.content) for sample in looked_at) / max(1, len(looked_at))
    return loose + (round(tars / each) if each else 0)
