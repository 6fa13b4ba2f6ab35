"""Latents to export, from anywhere: files, shards, and local or remote stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from auravae_cli.errors import AuraVaeError, LatentFileError, StoreError, reason_of
from auravae_cli.exchange.formats.base import name_of
from auravae_cli.files.places import safe_name
from auravae_cli.files.storage import Storage
from auravae_cli.latents.checks import rows_beyond
from auravae_cli.latents.latent_file import LatentFile, parse_latents, read_latents, stack
from auravae_cli.operations.batches import Outcome, failed
from auravae_cli.operations.inputs import Source
from auravae_cli.store.manifest import read_manifest
from auravae_cli.store.names import shards_of
from auravae_cli.store.settings import require_settings
from auravae_cli.store.unfinished import find_unfinished

STACK_ROWS, STACK_BYTES = 1000, 256 << 20  # of single latents in one file


@dataclass(frozen=True)
class ExportBatch:
    """A readable file of latents: one, or a stack; ``names`` has a name for each.

    ``source`` is its name in messages; ``is_row`` says whether it is one of a stack.
    """

    source: str
    latents: LatentFile
    names: Sequence[str]
    is_row: bool = False

    def rows(self) -> Iterator[ExportBatch]:
        """Yield each latent separately."""
        if not self.latents.is_shard:
            yield self
            return
        for row, name in enumerate(self.names):
            yield ExportBatch(f"{self.source}[{row}]", self.latents.row(row), (name,), True)


def file_parts(sources: Iterable[Source]) -> Iterator[ExportBatch | Outcome]:
    """Yield latent files and shards, in order."""
    for source in sources:
        try:
            if source.path is None:
                latents = parse_latents(source.read_bytes(LatentFileError))
            else:
                latents = read_latents(source.path)
        except (AuraVaeError, MemoryError) as error:
            yield failed(source.name, reason_of(error))
            continue
        stem = source.relative.with_suffix("").as_posix()
        if latents.is_shard:
            names = [
                safe_name(name_of(record, f"{stem}/{n:06d}"))
                for n, record in enumerate(latents.records)
            ]
        else:
            names = [safe_name(stem)]
        yield from sound_rows(ExportBatch(source.name, latents, names))


def store_parts(storage: Storage) -> Iterator[ExportBatch | Outcome]:
    """Yield the files of a store's shards, in order; a failure for what is damaged, unfinished or missing."""
    is_empty = True
    for part in _store_parts(storage):
        is_empty = False
        yield part
    if is_empty:
        yield failed(storage.root, "no latent in it: `auravae info` counts its shards and failures")


def _store_parts(storage: Storage) -> Iterator[ExportBatch | Outcome]:
    try:
        settings, entries = require_settings(storage), list(storage.entries())
    except StoreError as error:
        yield failed(storage.root, str(error))
        return
    for shard, reason in find_unfinished(settings, entries):
        yield failed(f"{storage.root}/{shard}" if shard else storage.root, reason)
    for shard in shards_of(entries):
        try:
            manifest = read_manifest(storage, shard)
        except StoreError as error:
            yield failed(f"{storage.root}/{shard}", str(error))
            continue
        if manifest is None:
            yield failed(f"{storage.root}/{shard}", "removed meanwhile: export it again")
            continue
        for output in manifest.outputs:
            yield from _output_parts(storage, output.name)


def _output_parts(storage: Storage, name: str) -> Iterator[ExportBatch | Outcome]:
    """Yield the sound latents in a file of a store, and a failure for each other."""
    source = f"{storage.root}/{name}"
    try:
        latents = parse_latents(storage.map(name))
    except FileNotFoundError:
        yield failed(source, "missing, though its manifest names it: copy it again")
        return
    except AuraVaeError as error:
        yield failed(source, str(error))
        return
    stem = name.removesuffix(".safetensors")
    names = [safe_name(name_of(r, f"{stem}/{n:06d}")) for n, r in enumerate(latents.records)]
    yield from sound_rows(ExportBatch(source, latents, names))


def count_rows(storage: Storage) -> int:
    """Count the latents of a store, for progress; damaged manifests count as empty."""
    total = 0
    try:
        shards = shards_of(list(storage.entries()))
    except StoreError:  # reported when it is read
        return 0
    for shard in shards:
        try:
            manifest = read_manifest(storage, shard)
        except StoreError:
            continue
        total += manifest.rows if manifest else 0
    return total


def sound_rows(part: ExportBatch) -> Iterator[ExportBatch | Outcome]:
    """Yield the rows whose values are finite and within the clamp, and a failure for each other."""
    latents = part.latents
    bad = rows_beyond(latents)
    if not bad.any():
        yield part
        return
    reason = f"NaN, infinite, or beyond the clamp of {latents.space.clamp:g}: encode it again"
    if not latents.is_shard:
        yield failed(part.source, f"values are {reason}")
        return
    for row in np.flatnonzero(bad):
        yield failed(f"{part.source}[{row}]", f"values are {reason}")
    kept = np.flatnonzero(~bad)
    if len(kept):
        records = tuple(latents.records[row] for row in kept)
        sound = replace(latents, values=latents.values[kept], records=records)
        yield ExportBatch(part.source, sound, [part.names[int(row)] for row in kept])


def stacked(parts: Iterable[ExportBatch | Outcome]) -> Iterator[ExportBatch | Outcome]:
    """Yield shards as they are, and single consecutive latents that agree as stacks."""
    waiting: list[ExportBatch] = []
    for part in parts:
        single = isinstance(part, ExportBatch) and not part.latents.is_shard
        if waiting and not (single and _goes_with(part, waiting)):
            yield _stack(waiting)
            waiting = []
        if isinstance(part, ExportBatch) and single:
            latents = replace(part.latents, values=part.latents.values.copy())  # releases its file
            waiting.append(replace(part, latents=latents))
        else:
            yield part
    if waiting:
        yield _stack(waiting)


def _goes_with(part: ExportBatch | Outcome, waiting: list[ExportBatch]) -> bool:
    assert isinstance(part, ExportBatch)
    one, first = part.latents, waiting[0].latents
    return (
        (one.values.shape, one.dtype, one.space) == (first.values.shape, first.dtype, first.space)
        and len(waiting) < STACK_ROWS
        and (len(waiting) + 1) * one.values.nbytes <= STACK_BYTES
    )


def _stack(parts: list[ExportBatch]) -> ExportBatch:
    first, last = parts[0].source, parts[-1].source
    source = first if len(parts) == 1 else f"{first} ... {last}"
    return ExportBatch(
        source, stack([part.latents for part in parts]), [part.names[0] for part in parts]
    )
