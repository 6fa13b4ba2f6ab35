"""Fill a store: its settings first, then one shard after the other, each with its manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from auravae_cli.errors import OutputError, StoreError
from auravae_cli.files.canonical_json import canonical
from auravae_cli.files.leftovers import hold_lock
from auravae_cli.files.scratch import publish_bytes, scratch_folder, write_small
from auravae_cli.files.spelling import lookalikes
from auravae_cli.files.storage import LocalStorage, Storage
from auravae_cli.store.ledger import Failure
from auravae_cli.store.manifest import Manifest, find_manifest
from auravae_cli.store.names import SETTINGS_FILE, failures_name, manifest_name, pending_name
from auravae_cli.store.settings import StoreSettings, read_settings, require_settings

# Settings by the option of `auravae encode` that sets them.
_OPTIONS = {
    "background": "background",
    "buckets": "buckets",
    "center_crop": "center-crop",
    "compute_dtype": "dtype",
    "crop": "crop",
    "model": "model",
    "pad": "pad",
    "picture": "picture",
    "resize": "resize",
    "stored_dtype": "latent-dtype",
}


@dataclass(frozen=True)
class PreviousShard:
    """The previous version of a shard in a store: its manifest, if it is sound, and the names of its files.

    ``pending`` is the version that a run was replacing it by when it was cut off: files can be of either.
    """

    manifest: Manifest | None = None
    files: tuple[str, ...] = ()
    pending: Manifest | None = None

    @property
    def seen(self) -> Manifest | None:
        """The manifest that was found in the store."""
        return self.manifest if self.pending is None else None


@dataclass(frozen=True)
class ShardOutcome:
    """The outcome of one shard: ``done``, ``skipped`` (finished before) or ``failed``.

    A shard that was not named is ``kept`` (and not looked into) or ``dropped``. ``reused`` counts the rows
    of named inputs taken from an older version, ``kept`` those of inputs that were not named, ``replaced``
    those whose input has changed, and ``dropped`` those that are gone. ``size`` is the size of its latents
    in bytes, ``source_size`` that of its source; ``passed_over`` counts, by suffix, the files in it that
    look like pictures and were not read; ``failed`` has each input that failed.
    """

    shard: str
    status: str
    rows: int = 0
    failures: int = 0
    reused: int = 0
    size: int = 0
    source_size: int = 0
    seconds: float = 0.0
    reason: str | None = None
    passed_over: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    replaced: int = 0
    dropped: int = 0
    failed: tuple[Failure, ...] = ()


CHANGED_MEANWHILE = (
    "another run changed this shard meanwhile, and its version stays; run the same line again"
)


def prepare_store(storage: Storage, settings: StoreSettings) -> StoreSettings:
    """Make the store, or check that it has the same settings. Return the settings to continue with.

    A store that does not record whose kernels made it is accepted, and stays without that record.

    Raises:
        StoreError: it was made by another model or with other settings.
        OutputError: it cannot be written.
    """
    found = read_settings(storage)
    if found is None:
        with scratch_folder(storage) as scratch:
            content = canonical(settings.to_json())
            storage.create(write_small(scratch, SETTINGS_FILE, content), SETTINGS_FILE)
        found = require_settings(storage)  # another run may have been faster
    settings = settings.as_known_to(found)
    if found != settings:
        made, asked = _apart(found.to_json(), settings.to_json())
        raise StoreError(
            f"{storage.root} holds latents of other settings: made with {made}, asked for {asked}. They are "
            "never mixed: name another store, or encode with the same settings"
        )
    return settings


def refuse_lookalikes(shards: Iterable[str | None], storage: Storage) -> None:
    """Raise StoreError if the storage does not distinguish the names of two shards.

    Otherwise they would replace each other's files in every run.
    """
    alike = lookalikes(shard for shard in shards if shard is not None)
    if alike and not storage.tells_apart():
        raise StoreError(
            f"shards {' and '.join(map(repr, alike[0]))} are one in {storage.root}, which does not tell "
            "such names apart: rename one of their sources, or name another place"
        )


def write_hashed(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a scratch file. Return its size in bytes and its sha256. Raises OutputError."""
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
    old: PreviousShard,
    *,
    keeps: bool = False,
) -> Manifest | None:
    """Publish a shard; return the version that is there in the end. Raises OutputError or StoreError.

    ``finished`` maps the names of the manifest's outputs to scratch files. An older manifest is removed
    first, so a crash in between costs the shard but never leaves a wrong one. Files of older versions
    that this one does not have, finished or not, are removed as well.

    With ``keeps``, rows of the older version are kept that the next run may be unable to make again. A
    crash must not cost them, so a file records both versions until the new one is there.

    If another run has published the same work meanwhile, its version stays. If it has published
    something else, nothing is touched, and None is returned.
    """
    name, ledger = manifest_name(manifest.shard), failures_name(manifest.shard)
    pending = pending_name(manifest.shard)
    with _alone(storage):
        current = find_manifest(storage, manifest.shard)
        if current is not None and current != old.seen:
            return current if _is_same_work(current, manifest) else None
        if keeps and old.seen is not None:
            versions = {"old": asdict(old.seen), "new": asdict(manifest)}
            publish_bytes(storage, scratch, pending, canonical(versions))
        kept = {*finished, *([ledger] if failures else []), *([pending] if keeps else [])}
        for older in sorted(old.files, key=lambda file: file != name):
            if older not in kept:
                storage.remove(older)
        for output in manifest.outputs:
            storage.publish(finished[output.name], output.name)
        if failures:
            content = b"".join(canonical(vars(failure)) for failure in failures)
            publish_bytes(storage, scratch, ledger, content)
        publish_bytes(storage, scratch, name, manifest.to_bytes())
        if keeps:
            storage.remove(pending)
    return manifest


def remove_shard(storage: Storage, shard: str, files: Iterable[str]) -> None:
    """Remove the files of a shard, its manifest first. Raises StoreError."""
    name = manifest_name(shard)
    with _alone(storage):
        for file in sorted(files, key=lambda file: file != name):
            storage.remove(file)


def _alone(storage: Storage) -> AbstractContextManager[None]:
    """Hold the store's lock, where there are locks: no other run on this machine changes a shard."""
    if isinstance(storage, LocalStorage):
        return hold_lock(storage.path / SETTINGS_FILE)
    return nullcontext()


def _is_same_work(one: Manifest, other: Manifest) -> bool:
    return (one.settings_sha256, one.sources, one.rows, one.failures) == (
        other.settings_sha256,
        other.sources,
        other.rows,
        other.failures,
    )


def _apart(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, str]:
    """Return what differs between two settings, on either side, as the options of `auravae encode`."""
    sides = [side | side.get("preparation", {}) for side in (old, new)]
    names = sorted({*sides[0], *sides[1]} - {"preparation"})
    different = [name for name in names if sides[0].get(name) != sides[1].get(name)]
    given = [[name for name in different if side.get(name)] or different for side in sides]
    made, asked = (
        ", ".join(_option(name, side.get(name)) for name in names)
        for side, names in zip(sides, given, strict=True)
    )
    return made, asked


def _option(name: str, value: Any) -> str:
    """Return a setting as the option that sets it, or in words.

    >>> _option("buckets", {"side": 256, "step": 64, "max_ratio": 2.0}), _option("resize", None)
    ('--buckets 256:64', 'no --resize')
    """
    label = f"--{_OPTIONS[name]}" if name in _OPTIONS else name.replace("_", " ")
    if value is None or value is False:
        return f"{'no' if name in _OPTIONS else 'not'} {label}"
    if value is True:
        return label
    if name == "buckets":
        value = f"{value['side']}:{value['step']}"
    elif name == "center_crop":  # kept as height, width
        value = f"{value[1]}x{value[0]}"
    elif isinstance(value, list):
        value = ",".join(map(str, value))
    text = str(value)
    return f"{label} {text if len(text) <= 40 else text[:12]}"
