"""What a run has to do to a store that may have something already.

What a store holds is what was named, in all runs: a run adds and replaces samples, and those that it does
not name are kept, unless it prunes. docs/datasets.md states the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from auravae_cli.errors import StoreError, UsageError
from auravae_cli.files.storage import Entry, LocalStorage, Storage
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.samples import is_done, not_named, source_sha256
from auravae_cli.operations.suffixes import is_picture
from auravae_cli.store.commit import (
    PreviousShard,
    ShardOutcome,
    refuse_lookalikes,
    remove_shard,
)
from auravae_cli.store.manifest import Manifest, SourceState, find_manifest, has_all, read_pending
from auravae_cli.store.names import (
    manifest_name,
    names_by_shard,
    pending_name,
    require_short,
    shard_index,
    shard_of,
)
from auravae_cli.store.settings import StoreSettings
from auravae_cli.store.verify import find_shard_faults

_TOLERANCE = 2  # by which shards may be larger or smaller than was asked for
_CHECKS_AT_ONCE = 8  # of manifests, each of which may be a request to a remote store
Step = TypeVar("Step")

# A shard to encode, with its older version, or the outcome of a finished one.
Work: TypeAlias = tuple[InputShard, PreviousShard] | ShardOutcome


def find_work(
    shards: Sequence[InputShard], storage: Storage, settings: StoreSettings, wanted: Wanted
) -> Iterator[Work]:
    """Return for each shard its outcome if it is done, otherwise the shard with its older version.

    Raises StoreError if the store does not distinguish the names of two shards.
    """
    present = {entry.name: entry for entry in storage.entries()}
    files = names_by_shard(present)
    refuse_lookalikes([*(shard.name for shard in shards), *files], storage)
    known = Present(storage, settings, present, wanted)
    others = unnamed_shards(files, wanted.named)
    for shard, found in prefetch(shards, known.look_up, workers=_CHECKS_AT_ONCE):
        try:
            storage.check(shard.name)
            require_short(shard.name)
            known.refuse_respelt(shard, others)
            known.refuse_unnamed(shard, found.manifest)
        except StoreError as error:  # it fails by itself: the others can be written
            yield ShardOutcome(shard.name, "failed", source_size=shard.size, reason=str(error))
            continue
        manifest = found.manifest
        if manifest and found.is_done and not (wanted.retries and manifest.failures):
            if pending_name(shard.name) in present:  # of a run that was cut off at the very end
                with suppress(StoreError):
                    remove_shard(storage, shard.name, [pending_name(shard.name)])
            yield ShardOutcome(
                shard.name,
                "skipped",
                manifest.rows,
                manifest.failures,
                0,
                manifest.size,
                shard.size,
                kept=count_pictures(not_named(shard, manifest)),
            )
        else:
            yield shard, PreviousShard(manifest, tuple(files.get(shard.name, ())), found.pending)


@dataclass(frozen=True)
class Wanted:
    """What a run makes of a store that has something already.

    ``named``: the names of all input shards of the run. ``unnamed``: whether what is not named is
    ``kept``, ``dropped``, or inside of a shard ``refused``. ``retries``: shards with failed inputs are
    not done. ``verifies``: the checksums of all files are compared, not only of those changed since.
    """

    named: Collection[str]
    unnamed: Literal["kept", "dropped", "refused"] = "kept"
    retries: bool = False
    verifies: bool = False


@dataclass(frozen=True)
class ShardState:
    """What a store has of an input shard: a sound manifest, and whether nothing is to do."""

    manifest: Manifest | None = None
    is_done: bool = False
    pending: Manifest | None = None


@dataclass(frozen=True)
class Present:
    """What is in a store before a run; ``present`` maps the names of its files to their entries."""

    storage: Storage
    settings: StoreSettings
    present: Mapping[str, Entry]
    wanted: Wanted

    def look_up(self, shard: InputShard) -> tuple[InputShard, ShardState]:
        """Return a shard, and what the store has of it."""
        return shard, self._find(shard)

    def _find(self, shard: InputShard) -> ShardState:
        name = shard.name
        manifest = (
            find_manifest(self.storage, name) if manifest_name(name) in self.present else None
        )
        if manifest is None:
            known = pending_name(name) in self.present and read_pending(self.storage, name)
            return ShardState(known.old, pending=known.new) if known else ShardState()
        try:
            done = self._is_sound(manifest) and is_done(shard, manifest)
        except (OSError, StoreError):  # the source cannot be read: encoding reports it
            return ShardState(manifest)
        drops = self.wanted.unnamed == "dropped" and not_named(shard, manifest)
        return ShardState(manifest, done and not drops)

    def refuse_respelt(self, shard: InputShard, others: Mapping[str, list[str]]) -> None:
        """Raise StoreError if the store has the very same tar as another shard, which is not named now."""
        if not shard.is_tar or manifest_name(shard.name) in self.present:
            return
        (file,), last = shard.files, _last(shard.name)
        for other in others if self.wanted.unnamed == "kept" else ():
            manifest = find_manifest(self.storage, other) if _last(other) == last else None
            for state in manifest.sources if manifest else ():
                if state.size == file.entry.size and state.sha256 == source_sha256(file):
                    raise StoreError(
                        f"{file.key}: the store has this tar as shard {other!r}: name it as before, or "
                        "add --prune to drop what is not named now"
                    )

    def refuse_unnamed(self, shard: InputShard, manifest: Manifest | None) -> None:
        """Raise StoreError if a shard has what is not named now, and that cannot be kept."""
        others = not_named(shard, manifest) if manifest else {}
        if others and self.wanted.unnamed == "refused":
            first = next(iter(others.values()))[0].name
            raise StoreError(
                f"it was made from {len(others)} files that are not named now, such as {first}: name "
                "them too, or another store"
            )

    def _is_sound(self, manifest: Manifest) -> bool:
        """Return whether all files of a shard are there, and those that may have changed are as they were."""
        sizes = {name: entry.size for name, entry in self.present.items()}
        if not has_all(manifest, self.settings, sizes):
            return False
        if not (self.wanted.verifies or self._is_touched(manifest)):
            return True
        faults = find_shard_faults(self.storage, manifest.shard, self.settings, sizes)
        return not any(finding.kind == "fault" for finding in faults)

    def _is_touched(self, manifest: Manifest) -> bool:
        """Return whether a file is younger than its manifest, which is always written last."""
        if not isinstance(self.storage, LocalStorage):
            return False
        finished = int(self.present[manifest_name(manifest.shard)].version)
        names = (output.name for output in manifest.outputs)
        return any(int(self.present[name].version) > finished for name in names)


def unnamed_shards(
    files: Mapping[str | None, list[str]], named: Collection[str]
) -> dict[str, list[str]]:
    """Return the shards of a store that are not named, each with its files."""
    return {
        shard: names
        for shard, names in sorted(files.items(), key=lambda item: item[0] or "")
        if shard is not None and shard not in named
    }


def count_pictures(samples: Mapping[str, Sequence[SourceState]]) -> int:
    """Return how many samples have a picture."""
    return sum(any(is_picture(state.name) for state in states) for states in samples.values())


def _last(shard: str) -> str:
    return shard.rpartition("/")[2]


def conclude(
    steps: Iterable[Step | ShardOutcome], storage: Storage, wanted: Wanted
) -> Iterator[Step | ShardOutcome]:
    """Yield the steps, then an outcome for each shard that is not named.

    If those are dropped, they go at the end, and only if no shard has failed.
    """
    is_sound = True
    for step in steps:
        is_sound &= not (isinstance(step, ShardOutcome) and step.status == "failed")
        yield step
    files = names_by_shard(entry.name for entry in storage.entries())
    for shard, names in unnamed_shards(files, wanted.named).items():
        if is_sound and wanted.unnamed == "dropped":
            remove_shard(storage, shard, names)
            yield ShardOutcome(shard, "dropped")
        else:
            yield ShardOutcome(shard, "kept")


def require_shard_size(
    shards: Sequence[InputShard],
    storage: Storage,
    shard_size: int,
    *,
    drops: bool = False,
    counts: Callable[[str], bool] = is_picture,
) -> None:
    """Raise UsageError if shards of a store would be of quite another size than is asked for.

    How many shards there are for loose files is settled when a store is made. ``counts`` says, by its name,
    whether a file is a latent's.
    """
    loose = [shard for shard in shards if not shard.is_tar]
    pictures = sum(counts(file.key) for shard in loose for file in shard.files)
    if not drops:
        for shard in loose:
            manifest = find_manifest(storage, shard.name)
            pictures += count_pictures(not_named(shard, manifest)) if manifest else 0
    large = pictures > _TOLERANCE * shard_size * len(loose)
    small = len(loose) > 1 and pictures * _TOLERANCE < shard_size * len(loose)
    if loose and (large or small):
        raise UsageError(
            f"{storage.root} has {len(loose)} shards for loose pictures since it was made, now "
            f"{pictures} pictures: about {-(-pictures // len(loose))} a shard, not {shard_size}. Leave this "
            "out, or name another store",
            "shard_size",
        )


def has_loose(storage: Storage) -> bool:
    """Return whether a store has shards of loose files. Raises StoreError."""
    return any(shard_index(shard_of(entry.name)) is not None for entry in storage.entries())
