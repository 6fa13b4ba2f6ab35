"""What a store lacks. Commands that take a whole store name it, since the rest would look complete."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from auravae_cli.files.storage import Entry
from auravae_cli.store.manifest import missing_shards
from auravae_cli.store.names import manifest_name, names_by_shard
from auravae_cli.store.settings import StoreSettings


def find_unfinished(settings: StoreSettings, entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yield each shard that has files but no manifest, and what to do; "" for what is not there at all."""
    files = names_by_shard(entry.name for entry in entries)
    begun = sorted(shard for shard in files if shard is not None)
    for shard in begun:
        if manifest_name(shard) not in files[shard]:
            yield shard, "not finished: run again what fills the store, or remove the shard's files"
    if reason := why_incomplete(settings, begun):
        yield "", reason


def why_incomplete(settings: StoreSettings, shards: Collection[str]) -> str | None:
    """Return which shards a store lacks that has these; None if it lacks none that it knows of."""
    advice = "copy the store again, or run encode again"
    number, names = missing_shards(settings, shards)
    if number:
        more = f" and {number - len(names)} more" if number > len(names) else ""
        return (
            f"{number} of {settings.num_file_shards} shards of loose files are not there: "
            f"{', '.join(names)}{more}; {advice}"
        )
    return None if shards else f"no shard is finished; {advice}"
