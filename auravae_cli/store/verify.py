"""Verify a store: every file against its manifest, every latent against the settings.

::

    listing --shards--> manifests --outputs--> sizes, sha256, headers, values
       |                    |--> ledgers           |--> keys, sources: repeated?
       '--> files that nothing names
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from auravae_cli.errors import AuraVaeError, StoreError
from auravae_cli.files.canonical_json import canonical
from auravae_cli.files.storage import Storage, open_storage
from auravae_cli.latents.checks import bad_values
from auravae_cli.latents.latent_file import LatentFile, parse_latents
from auravae_cli.store.certificate import CERTIFICATE_FILE, mismatch, read_certificate
from auravae_cli.store.duplicates import DuplicateFinder
from auravae_cli.store.headers import read_header
from auravae_cli.store.ledger import read_failures
from auravae_cli.store.manifest import Manifest, Output, read_manifest
from auravae_cli.store.names import (
    LEDGER,
    PENDING,
    SETTINGS_FILE,
    failures_name,
    manifest_name,
    output_name,
    part_of,
    shards_of,
)
from auravae_cli.store.settings import (
    StoreSettings,
    is_file,
    is_missing,
    read_settings,
    why_no_store,
)
from auravae_cli.store.unfinished import why_incomplete

SHOWN_REPEATS = 10  # of keys; the others are counted
_SHARD_SUFFIXES = (".safetensors", LEDGER, PENDING)


@dataclass(frozen=True)
class Finding:
    """A finding about a file of a store, or about all of it: a ``fault``, or a harmless ``note``."""

    kind: str
    file: str
    text: str


@dataclass
class VerifyState:
    """What a verification has seen so far."""

    shards: int = 0
    rows: int = 0
    failures: int = 0
    bytes: int = 0
    has_settings: bool = False
    named: set[str] = field(default_factory=lambda: {SETTINGS_FILE})
    keys: DuplicateFinder = field(default_factory=DuplicateFinder)
    sources: DuplicateFinder = field(default_factory=DuplicateFinder)
    files: list[Output] = field(default_factory=list)  # whose rows were added to both, in order
    firsts: list[int] = field(default_factory=list)  # the number of each file's first row there


def find_faults(storage: Storage, seen: VerifyState, *, quick: bool = False) -> Iterator[Finding]:
    """What is wrong with a store or worth knowing, as it is found; ``seen`` keeps count.

    ``quick`` reads no values, and so cannot detect changed ones. Memory: 32 bytes per row, the same again
    while they are compared, and a few megabytes. Raises StoreError if the storage cannot be listed.
    """
    try:
        settings = read_settings(storage)
    except StoreError as error:
        yield _fault(storage, SETTINGS_FILE, error)
        return
    if settings is None:
        if is_file(storage) or is_missing(storage):
            yield Finding("fault", "", why_no_store(storage))
        else:
            text = "missing: this is not a store, or it lost its settings"
            yield _fault(storage, SETTINGS_FILE, text)
        return
    seen.has_settings = True
    if storage.read(SETTINGS_FILE) != canonical(settings.to_json()):
        yield _fault(storage, SETTINGS_FILE, "not as it was written: changed by hand?")
    entries = list(storage.entries())
    sizes = {entry.name: entry.size for entry in entries}
    shards = shards_of(entries)
    yield from _missing(settings, shards)
    for shard in shards:
        yield from _shard(storage, shard, settings, sizes, seen, quick)
    if CERTIFICATE_FILE in sizes:
        yield from _certificate(storage, settings, seen)
    yield from _repeated(storage, seen)
    yield from (_leftover(name) for name in sizes if name not in seen.named)


def _missing(settings: StoreSettings, shards: list[str]) -> Iterator[Finding]:
    """Check that there are as many shards as the settings say."""
    if reason := why_incomplete(settings, shards):
        yield Finding("fault", "", reason)


def find_shard_faults(
    storage: Storage, shard: str, settings: StoreSettings, sizes: Mapping[str, int]
) -> Iterator[Finding]:
    """What is wrong with one shard, by the names and ``sizes`` of the store's files. Raises StoreError."""
    return _shard(storage, shard, settings, sizes, VerifyState(), quick=False)


def _shard(
    storage: Storage,
    shard: str,
    settings: StoreSettings,
    sizes: Mapping[str, int],
    seen: VerifyState,
    quick: bool,
) -> Iterator[Finding]:
    name = manifest_name(shard)
    seen.named.add(name)
    try:
        manifest = read_manifest(storage, shard)
    except StoreError as error:
        yield _fault(storage, name, error)
        return
    if manifest is None:
        yield _fault(storage, name, "removed meanwhile")
        return
    if manifest.shard != shard:
        yield _fault(storage, name, f"it is the manifest of shard {manifest.shard!r}, renamed")
    elif storage.read(name) != manifest.to_bytes():
        yield _fault(storage, name, "not as it was written: its counts or fields contradict")
    if manifest.settings_sha256 != settings.sha256:
        yield _fault(storage, name, "made with other settings than store.json's: encode it again")
    seen.shards += 1
    yield from _ledger(storage, shard, manifest, sizes, seen)
    for output in manifest.outputs:
        seen.named.add(output.name)
        faults = list(_output(storage, shard, output, settings, sizes, seen, quick))
        yield from (_fault(storage, output.name, fault) for fault in faults)


def _certificate(storage: Storage, settings: StoreSettings, seen: VerifyState) -> Iterator[Finding]:
    seen.named.add(CERTIFICATE_FILE)
    try:
        certificate = read_certificate(storage)
    except StoreError as error:
        yield _fault(storage, CERTIFICATE_FILE, error)
        return
    reason = certificate and mismatch(certificate.space, settings.space)
    if reason:
        yield _fault(storage, CERTIFICATE_FILE, reason)


def _ledger(
    storage: Storage, shard: str, manifest: Manifest, sizes: Mapping[str, int], seen: VerifyState
) -> Iterator[Finding]:
    name = failures_name(shard)
    if name in sizes:
        seen.named.add(name)
    try:
        found = len(read_failures(storage, shard))
    except StoreError as error:
        yield _fault(storage, name, error)
        return
    seen.failures += found
    if found != manifest.failures:
        text = f"{found} failures, but the manifest says {manifest.failures}"
        yield _fault(storage, name, text)


def _output(
    storage: Storage,
    shard: str,
    output: Output,
    settings: StoreSettings,
    sizes: Mapping[str, int],
    seen: VerifyState,
    quick: bool,
) -> Iterator[str | AuraVaeError]:
    found = sizes.get(output.name)
    if found is None:
        yield "missing, though its manifest names it: copy it again"
        return
    seen.bytes += found
    if found != output.size:
        yield f"{found} bytes, but its manifest says {output.size}: cut off, or changed"
        return
    try:
        if quick:
            latents = read_header(storage, output.name, found)
        else:
            content = storage.map(output.name)
            if hashlib.sha256(content).hexdigest() != output.sha256:
                yield "its sha256 is not the manifest's: damaged, or changed"
            latents = parse_latents(content)
    except FileNotFoundError:
        yield "removed meanwhile"
        return
    except AuraVaeError as error:
        yield error
        return
    yield from disagreements(shard, output, settings, latents)
    if not quick:
        yield from bad_values(latents)
    seen.files.append(output)
    seen.firsts.append(seen.rows)
    seen.rows += len(latents.records)
    seen.keys.add(record.key for record in latents.records)
    seen.sources.add(record.source_sha256 for record in latents.records)


def _repeated(storage: Storage, seen: VerifyState) -> Iterator[Finding]:
    """Yield faults for keys that occur more than once, and a note for such pictures."""
    keys = list(seen.keys.groups())
    for rows in keys[:SHOWN_REPEATS]:
        (first, row), *others = (_place(seen, number) for number in rows)
        key = _key(storage, first, row)
        places = ", ".join(f"row {r} of {output.name}" for output, r in others[:SHOWN_REPEATS])
        yield _fault(storage, first.name, f"row {row} has the key {key!r}, and so has {places}")
    if len(keys) > SHOWN_REPEATS:
        text = f"{len(keys) - SHOWN_REPEATS} more keys occur more than once"
        yield Finding("fault", "", text)
    if sources := list(seen.sources.groups()):
        (first, row), *_ = (_place(seen, number) for number in sources[0])
        text = (
            f"{len(sources)} pictures occur more than once, {sum(map(len, sources))} times in all; "
            f"the first is row {row} of {first.name}"
        )
        yield Finding("note", "", text)


def _key(storage: Storage, file: Output, row: int) -> str | None:
    try:
        return read_header(storage, file.name, file.size).records[row].key
    except (FileNotFoundError, AuraVaeError):  # it was there a moment ago
        return None


def _place(seen: VerifyState, number: int) -> tuple[Output, int]:
    """Return the file, and the row in it, of a row of the store."""
    file = bisect_right(seen.firsts, number) - 1
    return seen.files[file], number - seen.firsts[file]


def _leftover(name: str) -> Finding:
    if name.endswith(_SHARD_SUFFIXES):
        text = "no manifest names it: its shard is not finished; run encode again, or remove it"
        return Finding("fault", name, text)
    return Finding("note", name, "no file of the store")


def _fault(storage: Storage, file: str, reason: str | AuraVaeError) -> Finding:
    return Finding("fault", file, str(reason).removeprefix(f"{storage.root}/{file}: "))


def disagreements(
    shard: str, output: Output, settings: StoreSettings, latents: LatentFile
) -> Iterator[str]:
    """Yield where a header contradicts the settings or the manifest."""
    for what, found, expected in (
        ("shape", list(latents.values.shape), list(output.shape)),
        ("name", output.name, output_name(shard, latents.values.shape[-2:], part_of(output.name))),
        ("dtype", latents.dtype.name, settings.stored_dtype.name),
        ("latent space", latents.space, settings.space),
    ):
        if found != expected:
            yield f"its {what} is {found}, expected {expected}"


@dataclass(frozen=True)
class StoreReport:
    """The result of a verification, and how much it covered."""

    findings: tuple[Finding, ...]
    shards: int
    rows: int
    failures: int
    bytes: int
    is_store: bool = True

    @property
    def faults(self) -> int:
        """How many findings are faults; none in a sound store."""
        return sum(finding.kind == "fault" for finding in self.findings)


def verify_store(
    store: str | Path, *, quick: bool = False, progress: Callable[[Finding], None] | None = None
) -> StoreReport:
    """Check that a store is whole, as ``auravae verify`` does; what cannot be read is a finding too.

    Args:
        store: a folder or a URL.
        quick: check sizes and headers only, and read no values.
        progress: called with each finding as it comes.
    """
    seen, findings = VerifyState(), list[Finding]()

    def add(finding: Finding) -> None:
        findings.append(finding)
        if progress is not None:
            progress(finding)

    try:
        for finding in find_faults(open_storage(str(store)), seen, quick=quick):
            add(finding)
    except AuraVaeError as error:
        add(Finding("fault", "", str(error)))
    counts = seen.shards, seen.rows, seen.failures, seen.bytes
    return StoreReport(tuple(findings), *counts, is_store=seen.has_settings)
