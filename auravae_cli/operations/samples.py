"""The samples of an input shard, read once."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from auravae_cli.errors import StoreError
from auravae_cli.files.limits import FILE_BYTES, TEXT_BYTES, Limit
from auravae_cli.files.places import is_remote
from auravae_cli.files.storage import open_storage
from auravae_cli.files.tars import DAMAGES, read_members
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.sample import Content, Kept, Member, Sample, make_samples
from auravae_cli.operations.sources import SourceFile, is_wanted, stem
from auravae_cli.operations.suffixes import is_picture, is_tar, looks_like_a_picture
from auravae_cli.operations.tar_samples import TarSamples, is_meta
from auravae_cli.store.ledger import Failure
from auravae_cli.store.manifest import Manifest, SourceState

_REMOTE_READERS = 16  # parallel requests, since each waits for the network
_READ_BYTES = 64 << 20  # of files, read by them


@dataclass
class ShardReader:
    """Reads an input shard once; afterwards ``states`` has what was read.

    ``late`` has the annotations, by key, that a tar has after, and apart from, their pictures;
    ``passed_over`` counts, by suffix, members of a tar that look like pictures and are not read.

    ``kept`` has, by key, the samples of an older version that go on although they are not in the shard
    now; ``picture`` is as for `make_samples`.
    """

    shard: InputShard
    states: list[SourceState] = field(default_factory=list)
    late: dict[str, dict[str, Any]] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    kept: Mapping[str, Kept] = field(default_factory=dict)
    picture: str | None = None

    def __iter__(self) -> Iterator[Sample | Failure | Kept]:
        """Yield every sample, in order, each key once; a failure in place of a bad one."""
        seen: set[str] = set()
        self.states = []
        self.late.clear()
        self.passed_over.clear()
        for item in self._read_tar() if self.shard.is_tar else self._read_files():
            if isinstance(item, Sample):
                if item.key in seen:
                    yield Failure(item.key, "read", f"{item.source}: another picture has this key")
                    continue
                seen.add(item.key)
            yield item

    def _read_tar(self) -> Iterator[Sample | Failure]:
        (file,) = self.shard.files
        with open_storage(file.root).open(file.entry.name) as raw:
            hashed = _Hashed(raw, f"{file.root}/{file.entry.name}")
            samples = TarSamples(self.late, self.passed_over, self.picture)
            try:
                for member, content in read_members(hashed, self._limit_of):
                    kept = content if isinstance(content, str) else bytes(content)
                    yield from samples.add(member, kept)
                yield from samples.finish()
            except DAMAGES as error:
                # A truncated member would give half a picture; what came before it is complete.
                yield from samples.finish()
                reason = str(error) or type(error).__name__
                yield Failure(None, "archive", f"{file.key}: damaged or cut off: {reason}")
            reason = hashed.read_to_end()
        if reason:  # a sparse file of a terabyte would take an hour, and has no picture in it
            yield Failure(None, "archive", f"{file.key}: behind the end of the tar: {reason}")
            return
        entry = file.entry
        self.states = [SourceState(file.key, entry.size, entry.version, hashed.digest.hexdigest())]

    def _limit_of(self, name: str) -> Limit | None:
        """Return the limit of a member; None if no sample uses it."""
        if is_meta(name):
            return None
        if is_tar(name) or looks_like_a_picture(name):
            self.passed_over[Path(name).suffix.lower()] += 1
            return None
        return limit_of(name)

    def _read_files(self) -> Iterator[Sample | Failure | Kept]:
        groups: defaultdict[str, list[SourceFile]] = defaultdict(list)
        for file in self.shard.files:
            groups[stem(file.key)].append(file)
        self.states = []
        items = ((key, groups.get(key, [])) for key in sorted({*groups, *self.kept}))
        workers = _REMOTE_READERS if any(is_remote(f.root) for f in self.shard.files) else 1
        read_ahead = prefetch(
            items, _read_group, workers=workers, cost=_group_size, budget=_READ_BYTES
        )
        for key, read in read_ahead:
            members = list[Member]()
            if key in self.kept:
                self.states.extend(self.kept[key].states)
                yield self.kept[key]
                continue
            for file, content in read:
                members.append((file.key[len(key) :], content))
                if isinstance(content, bytes):
                    digest, entry = hashlib.sha256(content).hexdigest(), file.entry
                    self.states.append(SourceState(file.key, entry.size, entry.version, digest))
            yield from make_samples(key, members, self.passed_over, self.picture)


def not_named(shard: InputShard, manifest: Manifest) -> dict[str, tuple[SourceState, ...]]:
    """Return the files, by their samples' keys, that a shard was made from and that are not named now.

    A tar is named whole.
    """
    named = {stem(file.key) for file in shard.files}
    others: defaultdict[str, list[SourceState]] = defaultdict(list)
    for state in manifest.sources:
        if stem(state.name) not in named and not shard.is_tar:
            others[stem(state.name)].append(state)
    return {key: tuple(states) for key, states in others.items()}


def is_done(shard: InputShard, manifest: Manifest) -> bool:
    """Return whether a manifest was made from exactly the bytes that the shard has now, or from more samples.

    Files with unchanged size and version are taken to be unchanged; others are read and hashed.
    """
    others = not_named(shard, manifest)
    sources = (state for state in manifest.sources if stem(state.name) not in others)
    states = {state.name: state for state in sources}
    if states.keys() != {file.key for file in shard.files}:
        return False
    if any(states[file.key].size != file.entry.size for file in shard.files):
        return False
    return all(
        states[file.key].is_still(file.entry) or source_sha256(file) == states[file.key].sha256
        for file in shard.files
    )


def limit_of(name: str) -> Limit | None:
    """Return the limit of a file of a dataset, by its name; None if it is not one."""
    if is_picture(name) or is_tar(name):
        return FILE_BYTES
    return TEXT_BYTES if is_wanted(name) else None


class _Hashed:
    """A file that is read once, with the sha256 of what was read. Raises StoreError."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self.digest = file, name, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        try:
            content = self._file.read(size)
        except OSError as error:
            raise StoreError(f"{self._name}: {error.strerror or error}") from error
        self.digest.update(content)
        return content

    def read_to_end(self) -> str:
        """Read the rest; return why not, if it is too large."""
        size, reason = 0, ""
        while not reason and (content := self.read(1 << 20)):
            size += len(content)
            reason = FILE_BYTES.excess(size)
        return reason


def _group_size(item: tuple[str, list[SourceFile]]) -> int:
    return sum(file.entry.size for file in item[1])


def _read_group(
    item: tuple[str, list[SourceFile]],
) -> tuple[str, list[tuple[SourceFile, Content]]]:
    key, files = item
    return key, [(file, _read_file(file)) for file in files]


def _read_file(file: SourceFile) -> Content:
    limit = limit_of(file.key) or TEXT_BYTES
    try:
        return limit.excess(file.entry.size) or open_storage(file.root).read(file.entry.name)
    except (OSError, StoreError) as error:
        return str(error)


def source_sha256(file: SourceFile) -> str:
    """Return the sha256 of a file. Raises OSError or StoreError."""
    with open_storage(file.root).open(file.entry.name) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
