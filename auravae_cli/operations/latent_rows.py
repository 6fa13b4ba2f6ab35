"""The latents to decode, one by one: rows of shards, and of local or remote stores."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from auravae_cli.errors import AuraVaeError, LatentFileError, StoreError, UsageError
from auravae_cli.files.mapping import map_file
from auravae_cli.files.places import below, safe_name
from auravae_cli.latents.latent_file import LatentFile, Record, parse_latents
from auravae_cli.operations.inputs import Source
from auravae_cli.operations.jobs import Names, listed
from auravae_cli.store.names import SETTINGS_FILE, is_store, manifest_name, shards_of

if TYPE_CHECKING:
    from auravae_cli.files.storage import Storage


@dataclass(frozen=True, kw_only=True)
class StoreRow(Source):
    """A row of a store's file; if it is unavailable, ``fault`` says why.

    ``path`` is where it lies; it cannot be opened if the store is remote.
    """

    storage: Storage
    file: str
    fault: str = ""

    @property
    def name(self) -> str:
        """Its place, with the number of the row."""
        place = f"{self.storage.root}/{self.file}" if self.file else self.storage.root
        return place if self.row is None else f"{place}[{self.row}]"

    def read(self) -> LatentFile:
        """Return the latent. Raises LatentFileError or StoreError."""
        if self.row is None:
            raise LatentFileError(self.fault)
        latents = _open_stored(self.storage, self.file)  # type: ignore[arg-type] # all hash as objects
        return latents.row(self.row)


def with_stores(
    latents: Names, output: str | Path | None
) -> tuple[list[str], Callable[[Source], Sequence[Source]]]:
    """What to look for, and what that stands for: a store goes by the name of its settings file.

    Raises StoreError where there is no way to reach one, UsageError where results would lie in it.
    """
    names = listed(latents)
    stores_named = [name for name in names if is_store(name)]
    if not stores_named:
        return names, expand_shard
    if output is None:
        reason = f"pictures of the store {stores_named[0]} do not go into it: name a folder"
        raise UsageError(reason, "output")
    from auravae_cli.files.storage import open_storage

    files = {name: str(Path(name, SETTINGS_FILE)) for name in stores_named}
    stores = {Path(file): open_storage(name) for name, file in files.items()}

    def expand(source: Source) -> Sequence[Source]:
        storage = source.path and stores.get(source.path)
        return expand_store(storage) if storage else expand_shard(source)

    return [files.get(name, name) for name in names], expand


def expand_shard(source: Source) -> list[Source]:
    """Return the rows of a shard, named after their pictures; any other input unchanged."""
    if source.path is None:
        return [source]
    try:
        opened = open_latents(source.path)
    except LatentFileError:
        return [source]  # reading it gives the error
    if opened is None or not opened.latents.is_shard:
        return [source]
    folder = source.relative.parent
    return [
        Source(source.path, folder / _row_name(record, f"{row:06d}"), row)
        for row, record in enumerate(opened.latents.records)
    ]


def expand_store(storage: Storage) -> list[StoreRow]:
    """Return the rows of a store's finished shards, named after their pictures, and what is faulty or missing.

    If two shards have a picture of the same name, every shard gets its own folder.
    """
    from auravae_cli.store.settings import require_settings
    from auravae_cli.store.unfinished import find_unfinished

    try:
        settings, entries = require_settings(storage), list(storage.entries())
    except StoreError as error:
        return [_fault(storage, "", str(error))]
    sizes = {entry.name: entry.size for entry in entries}
    owners: dict[Path, str] = {}
    rows = [(shard, row) for shard in shards_of(entries) for row in _rows(storage, shard, sizes)]
    if not all(owners.setdefault(r.relative.with_suffix(""), shard) == shard for shard, r in rows):
        rows = [(shard, replace(r, relative=Path(shard) / r.relative)) for shard, r in rows]
    # Last, and by names that no picture has, so that a picture's place does not depend on them.
    unfinished = [
        replace(_fault(storage, shard, reason), relative=Path(manifest_name(shard)))
        for shard, reason in find_unfinished(settings, entries)
    ]
    return [*(row for _, row in rows), *unfinished]


def _rows(storage: Storage, shard: str, sizes: dict[str, int]) -> Iterator[StoreRow]:
    """Yield the rows of one shard; ``sizes`` has the sizes of all existing files."""
    from auravae_cli.store.headers import read_header
    from auravae_cli.store.manifest import read_manifest

    try:
        manifest = read_manifest(storage, shard)
    except StoreError as error:
        yield _fault(storage, shard, str(error))
        return
    for file in [output.name for output in manifest.outputs] if manifest else ():
        if file not in sizes:
            yield _fault(storage, file, "missing, though its manifest names it: copy it again")
            continue
        try:
            records = read_header(storage, file, sizes[file]).records
        except AuraVaeError as error:
            yield _fault(storage, file, str(error))
            continue
        stem = file.removesuffix(".safetensors")
        path = below(Path(storage.root), file, to_write=False)
        for row, record in enumerate(records):
            name = _row_name(record, f"{stem}/{row:06d}")
            yield StoreRow(path, name, row, storage=storage, file=file)


def _fault(storage: Storage, file: str, reason: str) -> StoreRow:
    name = Path(file or "store")
    return StoreRow(Path(storage.root, name), name, storage=storage, file=file, fault=reason)


def _row_name(record: Record, otherwise: str) -> Path:
    """Return a relative path for any name, with a suffix that the picture's replaces.

    It is the source's name, or the key (whose dots start no suffix), or ``otherwise``.
    """
    return Path(safe_name(record.source or f"{record.key or otherwise}.safetensors"))


@dataclass(frozen=True)
class OpenedFile:
    """A file of latents: its bytes, read or mapped, and what they say."""

    content: bytes | memoryview
    latents: LatentFile


def open_latents(path: Path) -> OpenedFile | None:
    """A file of latents, which stays open until the next one is; None for what is no file.

    Reading a pipe here would use it up. Raises LatentFileError.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return _open_version(path)  # says why it cannot be read
    if not stat.S_ISREG(status.st_mode):
        return None
    return _open_version(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)  # the rows of a shard come one after the other
def _open_version(path: Path, *version: int) -> OpenedFile:
    content = map_file(path, LatentFileError)
    return OpenedFile(content, parse_latents(content))


@lru_cache(maxsize=1)  # likewise, and a remote file is fetched once
def _open_stored(storage: Storage, file: str) -> LatentFile:
    try:
        return parse_latents(storage.map(file))
    except FileNotFoundError as error:
        raise LatentFileError("removed meanwhile") from error
