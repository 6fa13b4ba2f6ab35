"""A finished shard => its place in a store: files first, the manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.errors import OutputError
from auravae_cli.pipeline.scratch import publish_bytes
from auravae_cli.storage import Storage
from auravae_cli.store import Failure, Manifest, canonical, failures_name, manifest_name


@dataclass(frozen=True)
class Older:
    """What a store has of a shard: its manifest, if it is sound, and the names of its files."""

    manifest: Manifest | None = None
    files: tuple[str, ...] = ()


def write_hashed(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a scratch file; its bytes and its sha256. Raises OutputError."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += memoryview(chunk).nbytes
    except OSError as error:
        raise OutputError(f"cannot write {path.parent}: {error.strerror or error}") from error
    return size, digest.hexdigest()


def commit_shard(
    storage: Storage,
    scratch: Path,
    manifest: Manifest,
    finished: Mapping[str, Path],
    failures: Sequence[Failure],
    old: Older,
) -> None:
    """Put a shard in its place. Raises OutputError or StoreError.

    ``finished`` maps the names of the manifest's outputs to scratch files. An older manifest goes
    first: a crash between then costs the shard, never its truth. So do files of older versions,
    finished or not, that this one has not.
    """
    name, ledger = manifest_name(manifest.shard), failures_name(manifest.shard)
    kept = {*finished, *([ledger] if failures else [])}
    for older in sorted(old.files, key=lambda file: file != name):
        if older not in kept:
            storage.remove(older)
    for output in manifest.outputs:
        storage.publish(finished[output.name], output.name)
    if failures:
        content = b"".join(canonical(vars(failure)) for failure in failures)
        publish_bytes(storage, scratch, ledger, content)
    publish_bytes(storage, scratch, name, manifest.to_bytes())
