"""Flip a store of latents into another store, with neither a model nor torch.

::

    store.json --> the same settings, flipped
    a shard's files --check, act--> files --commit--> shard, manifest
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from auravae_cli.errors import LatentFileError, StoreError, UsageError
from auravae_cli.files.places import is_remote, local_name
from auravae_cli.files.scratch import publish_bytes, scratch_if_needed
from auravae_cli.files.storage import Entry, Storage, open_storage
from auravae_cli.latents.latent_file import flipped_chunks, parse_latents
from auravae_cli.machine.progress import Progress
from auravae_cli.store.certificate import CERTIFICATE_FILE
from auravae_cli.store.commit import (
    CHANGED_MEANWHILE,
    PreviousShard,
    ShardOutcome,
    commit_shard,
    prepare_store,
    refuse_lookalikes,
    write_hashed,
)
from auravae_cli.store.ledger import read_failures
from auravae_cli.store.manifest import Manifest, Output, find_manifest, has_all, read_manifest
from auravae_cli.store.names import names_by_shard, shards_of
from auravae_cli.store.progress import follow_shards
from auravae_cli.store.settings import StoreSettings, require_settings
from auravae_cli.store.unfinished import find_unfinished
from auravae_cli.symmetry.group import GroupElement

FLIPPED = "flipped"  # in a store's preparation: the element by which all its latents were flipped


def flipped_settings(settings: StoreSettings, g: GroupElement) -> StoreSettings:
    """Return the settings of the flipped store. Flipping twice gives the original settings.

    Since they differ, `encode` does not take one of the two stores for the other.
    """
    preparation = dict(settings.preparation)
    by = g @ GroupElement.parse(preparation.pop(FLIPPED, "e"))
    if by.axes:
        preparation[FLIPPED] = str(by)
    return replace(settings, preparation=preparation)


@dataclass(frozen=True)
class StoreFlipper:
    """Flips the shards of ``source`` into ``target`` by ``g``."""

    source: Storage
    target: Storage
    g: GroupElement

    @cached_property
    def settings(self) -> StoreSettings:
        """The settings of the source. Raises StoreError if it is not a store."""
        return require_settings(self.source)

    @cached_property
    def entries(self) -> list[Entry]:
        """The files of the source. Raises StoreError."""
        return list(self.source.entries())

    @property
    def size(self) -> int:
        """The size of the latents in bytes."""
        return sum(e.size for e in self.entries if e.name.endswith(".safetensors"))

    def run(self) -> Iterator[ShardOutcome]:
        """Flip every finished shard that is not flipped yet; yield an outcome for each, and for others.

        Raises OutputError or StoreError if the target cannot be written, or is a different store.
        """
        settings, shards = flipped_settings(self.settings, self.g), shards_of(self.entries)
        sizes = {entry.name: entry.size for entry in self.target.entries()}
        files = names_by_shard(sizes)
        refuse_lookalikes([*shards, *files], self.target)
        settings = prepare_store(self.target, settings)
        with scratch_if_needed(self.target) as scratch:
            for shard in shards:
                started = time.perf_counter()
                try:
                    manifest = self._manifest(shard)
                    self.target.check(shard)
                    found = find_manifest(self.target, shard)
                    if self._is_done(manifest, found, settings, sizes):
                        yield _outcome(manifest, "skipped")
                        continue
                    finished = {
                        output.name: scratch() / str(number)
                        for number, output in enumerate(manifest.outputs)
                    }
                    outputs = tuple(self._flip(o, finished[o.name]) for o in manifest.outputs)
                    failures = read_failures(self.source, shard)
                except (StoreError, LatentFileError) as error:
                    yield ShardOutcome(shard, "failed", reason=str(error))
                    continue
                made = replace(manifest, settings_sha256=settings.sha256, outputs=outputs)
                old = PreviousShard(found, tuple(files.get(shard, ())))
                if commit_shard(self.target, scratch(), made, finished, failures, old) is None:
                    yield ShardOutcome(shard, "failed", reason=CHANGED_MEANWHILE)
                    continue
                yield _outcome(made, "done", round(time.perf_counter() - started, 3))
            self._copy_certificate(scratch)
        for shard, reason in find_unfinished(self.settings, self.entries):
            told = reason if shard else f"{self.source.root}: {reason}"
            yield ShardOutcome(shard, "failed", reason=told)
        for shard in shards_of(list(self.target.entries())):
            if shard not in shards:
                yield ShardOutcome(shard, "kept")

    def _manifest(self, shard: str) -> Manifest:
        manifest = read_manifest(self.source, shard)
        if manifest is None:
            raise StoreError("removed meanwhile")
        if manifest.shard != shard:
            raise StoreError(f"its manifest is that of shard {manifest.shard!r}, renamed")
        if manifest.settings_sha256 != self.settings.sha256:
            raise StoreError("made with other settings than store.json has: encode it again")
        return manifest

    def _is_done(
        self,
        manifest: Manifest,
        found: Manifest | None,
        settings: StoreSettings,
        sizes: dict[str, int],
    ) -> bool:
        """Return whether the target has ``found`` this shard, with the same sources and rows."""
        return (
            found is not None
            and has_all(found, settings, sizes)
            and (found.sources, found.failures) == (manifest.sources, manifest.failures)
            and [(o.name, o.shape) for o in found.outputs]
            == [(o.name, o.shape) for o in manifest.outputs]
        )

    def _flip(self, output: Output, path: Path) -> Output:
        """Flip a file of latents. A damaged one is refused, since its copy would look sound."""
        try:
            content = self.source.map(output.name)
        except FileNotFoundError as error:
            raise StoreError(f"{output.name}: missing, though its manifest names it") from error
        if hashlib.sha256(content).hexdigest() != output.sha256:
            raise StoreError(f"{output.name}: not what its manifest says: see `auravae verify`")
        size, sha256 = write_hashed(path, flipped_chunks(parse_latents(content), self.g))
        return replace(output, size=size, sha256=sha256)

    def _copy_certificate(self, scratch: Callable[[], Path]) -> None:
        """Copy the certificate, which describes the model and so still applies."""
        with suppress(FileNotFoundError):
            content = self.source.read(CERTIFICATE_FILE)
            with suppress(FileNotFoundError):
                if self.target.read(CERTIFICATE_FILE) == content:
                    return
            publish_bytes(self.target, scratch(), CERTIFICATE_FILE, content)


def _outcome(manifest: Manifest, status: str, seconds: float = 0.0) -> ShardOutcome:
    size = manifest.size
    return ShardOutcome(
        manifest.shard, status, manifest.rows, size=size, source_size=size, seconds=seconds
    )


def flip_store(
    store: str | Path,
    output: str | Path,
    by: GroupElement | str,
    *,
    progress: Progress[ShardOutcome] | None = None,
) -> list[ShardOutcome]:
    """Flip every latent of a store into another one; an outcome for each shard.

    Shards that are flipped already are skipped, so that a run can be started again.

    Args:
        store, output: folders or URLs; the output lies outside of the store.
        by: ``h``, ``v`` or ``hv``.
        progress: called with each outcome, and how many bytes of latents are done.

    Raises:
        UsageError: the output is the store itself, or in it. StoreError, OutputError: one of them
            cannot be read or written, or the output is another store.
    """
    source, target = local_name(str(store)), local_name(str(output))
    if not is_remote(target) and Path(target).resolve().is_relative_to(Path(source).resolve()):
        raise UsageError("it is the store itself, or in it: name another place", "output")
    by = GroupElement.of(by)
    flipper = StoreFlipper(open_storage(source), open_storage(target), by)
    return follow_shards(flipper.run(), flipper.size, progress)
