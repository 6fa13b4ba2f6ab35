"""The manifest of a shard of a store: what it holds, and what it was made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice

from auravae_cli.errors import StoreError
from auravae_cli.files.canonical_json import canonical, read_json
from auravae_cli.files.places import fault_of
from auravae_cli.files.storage import Entry, Storage
from auravae_cli.files.typed import Natural, Positive, read_as
from auravae_cli.store.names import (
    failures_name,
    file_shard,
    manifest_name,
    output_name,
    part_of,
    pending_name,
    shard_index,
    shards_of,
)
from auravae_cli.store.settings import FORMAT_VERSION, StoreSettings, require_format

SHOWN_MISSING = 10  # of shards; the others are only counted


@dataclass(frozen=True)
class SourceState:
    """A file that a shard was made from: its name, its content, and its version when it was read."""

    name: str
    size: Natural
    version: str
    sha256: str

    def is_still(self, entry: Entry) -> bool:
        """Return whether ``entry`` is certainly this file: nothing that is cheap to check has changed."""
        return bool(self.version) and (self.size, self.version) == (entry.size, entry.version)


@dataclass(frozen=True)
class Output:
    """A file of latents: ``shape`` is [N, C, h, w]."""

    name: str
    size: Natural
    sha256: str
    shape: tuple[Positive, Positive, Positive, Positive]


@dataclass(frozen=True)
class Manifest:
    """What one finished shard holds, and what it was made from."""

    shard: str
    settings_sha256: str
    sources: tuple[SourceState, ...]
    outputs: tuple[Output, ...]
    failures: Natural

    @property
    def faults(self) -> list[str]:
        """Contradictions, such as names of files that do not belong to this shard or to any store."""
        fault = fault_of(self.shard)
        return [f"shard: {self.shard!r} {fault}"] * bool(fault) + [
            f"outputs: {output.name!r} is no file of shard {self.shard!r}"
            for output in self.outputs
            if output.name != output_name(self.shard, output.shape[-2:], part_of(output.name))
        ]

    @property
    def rows(self) -> int:
        """The number of latents."""
        return sum(output.shape[0] for output in self.outputs)

    @property
    def size(self) -> int:
        """The size of its files of latents in bytes."""
        return sum(output.size for output in self.outputs)

    def to_bytes(self) -> bytes:
        """Return the manifest's file."""
        return canonical(
            {"format": "auravae-shard", "format_version": FORMAT_VERSION, "rows": self.rows}
            | asdict(self)
        )


@dataclass(frozen=True)
class Pending:
    """Two versions of a shard, of which the store's files can be either: a run was cut off between them."""

    old: Manifest
    new: Manifest


def read_manifest(storage: Storage, shard: str) -> Manifest | None:
    """Return the manifest of a shard; None if it is not done. Raises StoreError."""
    name = manifest_name(shard)
    try:
        content = read_json(storage.read(name))
        require_format(content, "auravae-shard", FORMAT_VERSION)
        counts = ("format", "format_version", "rows")
        return read_as(Manifest, {n: value for n, value in content.items() if n not in counts})
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{storage.root}/{name}: damaged manifest ({error}); remove it to have the shard made again"
        ) from error


def find_manifest(storage: Storage, shard: str) -> Manifest | None:
    """Return the manifest of a shard; None if it is not done, or its manifest is damaged or another's."""
    try:
        manifest = read_manifest(storage, shard)
    except StoreError:
        return None
    return manifest if manifest is not None and manifest.shard == shard else None


def read_pending(storage: Storage, shard: str) -> Pending | None:
    """Return both versions of a shard that a run was replacing when it was cut off; None if there are none."""
    try:
        found = read_as(Pending, read_json(storage.read(pending_name(shard))))
    except (FileNotFoundError, ValueError):
        return None
    return found if found.old.shard == found.new.shard == shard else None


def iterate_manifests(storage: Storage) -> Iterator[Manifest]:
    """Yield the manifests of all finished shards, in order. Raises StoreError."""
    for shard in shards_of(list(storage.entries())):
        manifest = read_manifest(storage, shard)
        if manifest is not None:
            yield manifest


def has_all(manifest: Manifest, settings: StoreSettings, sizes: Mapping[str, int]) -> bool:
    """Return whether a store of these settings has all of a shard's files, by their names and ``sizes``."""
    return (
        manifest.settings_sha256 == settings.sha256
        and all(sizes.get(output.name) == output.size for output in manifest.outputs)
        and (failures_name(manifest.shard) in sizes) == (manifest.failures > 0)
    )


def missing_shards(settings: StoreSettings, shards: Collection[str]) -> tuple[int, list[str]]:
    """Return how many shards of loose files a store lacks, and the names of the first `SHOWN_MISSING`.

    A complete store has all of them, even those without a file. Tars are not counted, since a store
    does not record how many it was made from.
    """
    number, finished = settings.num_file_shards, set(shards)
    indices = (shard_index(shard) for shard in finished)
    found = sum(1 for index in indices if index is not None and index < number)
    if found == number or (found == 0 and number == 1):
        return 0, []
    names = (name for index in range(number) if (name := file_shard(index)) not in finished)
    return number - found, list(islice(names, SHOWN_MISSING))
