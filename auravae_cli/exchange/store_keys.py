"""The keys of a store's rows, none of which occurs twice: those of an import, and those there before."""

from __future__ import annotations

from dataclasses import dataclass, field

from auravae_cli.errors import AuraVaeError
from auravae_cli.files.storage import Storage
from auravae_cli.operations.taken_names import digest_of
from auravae_cli.store.headers import read_header
from auravae_cli.store.manifest import find_manifest
from auravae_cli.store.names import shards_of


@dataclass
class StoreKeys:
    """Gives keys to the rows of one shard after another. Costs about 100 bytes per key, however long.

    What a store has is read when the first shard begins, so that an import which is started again names
    rows as one without a break does.
    """

    storage: Storage
    _owners: dict[int, str] = field(default_factory=dict)  # digest of a key => its shard
    _shard: str = ""
    _taken: set[str] = field(default_factory=set)  # in this shard

    def begin(self, shard: str) -> None:
        """Begin a shard. The keys of its older version are free for it."""
        if not self._shard:
            self._read()
        self._shard, self._taken = shard, set()

    def take(self, key: str) -> bool:
        """Take a key; return whether it was new to the store."""
        if (
            self._owners.setdefault(digest_of(key), self._shard) != self._shard
            or key in self._taken
        ):
            return False
        self._taken.add(key)
        return True

    def _read(self) -> None:
        entries = list(self.storage.entries())
        sizes = {entry.name: entry.size for entry in entries}
        for shard in shards_of(entries):
            manifest = find_manifest(self.storage, shard)
            for output in manifest.outputs if manifest else ():
                if output.name in sizes:
                    self._read_file(shard, output.name, sizes[output.name])

    def _read_file(self, shard: str, name: str, size: int) -> None:
        try:
            records = read_header(self.storage, name, size).records
        except (AuraVaeError, FileNotFoundError):
            return  # such a shard is made again, or `auravae verify` names it
        for record in records:
            if record.key is not None:
                self._owners.setdefault(digest_of(record.key), shard)
