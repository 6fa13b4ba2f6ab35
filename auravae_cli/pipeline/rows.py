"""The rows of one shard under way: spooled to disk as they come, committed in order at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from auravae_cli.errors import AuraVaeError, OutputError
from auravae_cli.latentfile import LatentFile, Record, parse_latents
from auravae_cli.pipeline.scratch import publish_bytes
from auravae_cli.pipeline.shards import InputShard
from auravae_cli.storage import Storage
from auravae_cli.store import (
    Failure,
    Manifest,
    Output,
    Settings,
    SourceState,
    canonical,
    failures_name,
    manifest_name,
    output_name,
)

_BLOCK_BYTES = 1 << 22


class Spool:
    """Latents of one shape, written to a scratch file in whatever order they come."""

    def __init__(self, path: Path, first: LatentFile) -> None:
        self._path, self._first = path, first
        self._file = path.open("wb")
        self._indices: list[int] = []
        self._records: list[Record] = []

    def add(self, index: int, latent: LatentFile) -> None:
        """Keep a single latent; ``index`` is its sample's place in the input shard."""
        self._file.write(latent.values.tobytes())
        self._indices.append(index)
        self._records.append(latent.records[0])

    def finish(self, path: Path) -> tuple[int, str, tuple[int, ...]]:
        """Write the shard's file, rows in the order of the input; its bytes, sha256 and shape."""
        self._file.close()
        order = np.argsort(self._indices, kind="stable")
        shape = (len(order), *self._first.values.shape)
        values: np.memmap[Any, Any] = np.memmap(self._path, self._first.values.dtype, "r", 0, shape)
        records = tuple(self._records[i] for i in order)
        header = replace(self._first, values=values, records=records).header()
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as file:
            for chunk in _chunks(header, values, order):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        del values
        self._path.unlink()
        return size, digest.hexdigest(), shape

    def discard(self) -> None:
        """Give the spool up."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Rows:
    """What a shard has so far: latents by shape, and failures. To be committed or discarded."""

    def __init__(self, shard: InputShard, scratch: Path) -> None:
        self.shard, self._scratch = shard, scratch
        self._spools: dict[tuple[int, ...], Spool] = {}
        self._failures: list[tuple[int, Failure]] = []

    def add(self, index: int, item: LatentFile | Failure) -> None:
        """Keep the outcome of a sample. Raises OutputError where the disk takes no more."""
        if isinstance(item, Failure):
            self._failures.append((index, item))
            return
        try:
            shape = item.values.shape
            if shape not in self._spools:
                path = self._scratch / f"spool-{id(self)}-{len(self._spools)}"
                self._spools[shape] = Spool(path, item)
            self._spools[shape].add(index, item)
        except OSError as error:
            raise OutputError(f"cannot write {self._scratch}: {error.strerror}") from error

    def commit(
        self,
        storage: Storage,
        settings: Settings,
        states: list[SourceState],
        old: Manifest | None,
    ) -> Manifest:
        """Put the shard in its place, the manifest last. Raises OutputError or StoreError.

        What an older version of the shard had goes first: a crash between then costs the shard,
        never its truth.
        """
        try:
            finished = {
                output_name(self.shard.name, (shape[-2], shape[-1])): (
                    self._scratch / f"output-{id(self)}-{number}",
                    spool,
                )
                for number, (shape, spool) in enumerate(self._spools.items())
            }
            outputs = [
                Output(name, *spool.finish(path)) for name, (path, spool) in finished.items()
            ]
        except OSError as error:
            raise OutputError(f"cannot write {self._scratch}: {error.strerror}") from error
        if old is not None:
            for name in (*(output.name for output in old.outputs), manifest_name(old.shard)):
                storage.remove(name)
        for output in outputs:
            storage.publish(finished[output.name][0], output.name)
        self._commit_failures(storage)
        manifest = Manifest(
            self.shard.name,
            settings.sha256,
            tuple(states),
            tuple(sorted(outputs, key=lambda output: output.name)),
            len(self._failures),
        )
        publish_bytes(storage, self._scratch, manifest_name(self.shard.name), manifest.to_bytes())
        return manifest

    def _commit_failures(self, storage: Storage) -> None:
        name = failures_name(self.shard.name)
        if not self._failures:
            storage.remove(name)
            return
        failures = [failure for _, failure in sorted(self._failures, key=lambda item: item[0])]
        lines = b"".join(canonical(vars(failure)) for failure in failures)
        publish_bytes(storage, self._scratch, name, lines)

    def discard(self) -> None:
        """Give the shard up; what is published stays."""
        for spool in self._spools.values():
            with suppress(OSError):
                spool.discard()


class OldRows:
    """The rows of a shard's committed version, so that none is encoded twice."""

    def __init__(self, storage: Storage, manifest: Manifest | None, settings: Settings) -> None:
        self._rows: dict[tuple[str | None, str | None], tuple[LatentFile, int]] = {}
        if manifest is None or manifest.settings_sha256 != settings.sha256:
            return
        for output in manifest.outputs:
            with suppress(AuraVaeError, FileNotFoundError):  # damaged: its rows are made again
                content = storage.map(output.name)
                if hashlib.sha256(content).hexdigest() == output.sha256:
                    latents = parse_latents(content)
                    for row, record in enumerate(latents.records):
                        self._rows[record.key, record.source_sha256] = latents, row

    def find(self, key: str, source_sha256: str, source: str) -> LatentFile | None:
        """The latent of this very picture, if it stands there."""
        latents, row = self._rows.get((key, source_sha256), (None, 0))
        if latents is None or latents.records[row].source != source:
            return None
        return latents.row(row)

    def __len__(self) -> int:
        return len(self._rows)


def _chunks(header: bytes, values: Any, order: Any) -> Iterator[bytes]:
    yield header
    at_once = max(1, _BLOCK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(order), at_once):
        yield values[order[start : start + at_once]].tobytes()
