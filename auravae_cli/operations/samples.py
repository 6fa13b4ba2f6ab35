"""The samples of an input shard: a picture's bytes and what stands beside it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from auravae_cli.errors import InputImageError, StoreError
from auravae_cli.files.canonical_json import check_depth, read_json
from auravae_cli.files.limits import FILE_BYTES, TEXT_BYTES, Limit
from auravae_cli.files.storage import is_remote, open_storage
from auravae_cli.files.tars import DAMAGES, read_members
from auravae_cli.files.typed import read_as
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.sources import SourceFile, is_picture, is_tar, is_wanted, stem
from auravae_cli.store.format import Failure, Manifest, SourceState

_REMOTE_READERS = 16  # requests under way at once, since each waits for the network
_READ_BYTES = 64 << 20  # of files, read by them

Content: TypeAlias = bytes | str  # of a file; or a text, why it could not be read


@dataclass(frozen=True)
class Sample:
    """A picture on its way: ``source`` is its name in the data set, ``content`` the file's bytes."""

    key: str
    source: str
    content: bytes
    annotations: dict[str, Any]


@dataclass
class ShardReader:
    """Reads an input shard once; afterwards ``states`` says what was read."""

    shard: InputShard
    states: list[SourceState] = field(default_factory=list)

    def __iter__(self) -> Iterator[Sample | Failure]:
        """Every sample, in order, each key once; a failure in the place of one that has none."""
        seen: set[str] = set()
        self.states = []
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
            members: list[tuple[str, Content]] = []
            key, size = None, 0
            try:
                for member, content in read_members(hashed, limit_of):
                    name, suffix = split_name(member)
                    if name != key:
                        yield from make_samples(key, members)
                        key, members, size = name, [], 0
                    size += len(content)  # of all that has one key, for that is held together
                    kept = content if isinstance(content, str) else bytes(content)
                    members.append((suffix, FILE_BYTES.excess(size) or kept))
                yield from make_samples(key, members)
            except DAMAGES as error:
                # A member that is cut off would give half a picture: what came before it is whole.
                yield from make_samples(key, members)
                reason = str(error) or type(error).__name__
                yield Failure(None, "archive", f"{file.key}: damaged or cut off: {reason}")
            reason = hashed.read_to_end()
        if reason:  # a hole of a terabyte would take an hour, and has no picture in it
            yield Failure(None, "archive", f"{file.key}: behind the end of the tar: {reason}")
            return
        entry = file.entry
        self.states = [SourceState(file.key, entry.size, entry.version, hashed.digest.hexdigest())]

    def _read_files(self) -> Iterator[Sample | Failure]:
        groups: defaultdict[str, list[SourceFile]] = defaultdict(list)
        for file in self.shard.files:
            groups[stem(file.key)].append(file)
        self.states = []
        items = ((key, groups[key]) for key in sorted(groups))
        workers = _REMOTE_READERS if any(is_remote(f.root) for f in self.shard.files) else 1
        read_ahead = prefetch(
            items, _read_group, workers=workers, cost=_group_size, budget=_READ_BYTES
        )
        for key, read in read_ahead:
            members = []
            for file, content in read:
                members.append((file.key[len(key) :], content))
                if isinstance(content, bytes):
                    digest, entry = hashlib.sha256(content).hexdigest(), file.entry
                    self.states.append(SourceState(file.key, entry.size, entry.version, digest))
            yield from make_samples(key, members)


def is_done(shard: InputShard, manifest: Manifest) -> bool:
    """Whether a manifest was made from the very bytes that the shard has now.

    Files whose size and version are the same are taken to be the same; others are read and hashed.
    """
    states = {state.name: state for state in manifest.sources}
    if states.keys() != {file.key for file in shard.files}:
        return False
    if any(states[file.key].size != file.entry.size for file in shard.files):
        return False
    return all(
        states[file.key].is_still(file.entry) or _sha256(file) == states[file.key].sha256
        for file in shard.files
    )


def split_name(name: str) -> tuple[str, str]:
    """A member's key and suffix: split at the first dot of the last part, as WebDataset does.

    >>> split_name("a.b/000.seg.png")
    ('a.b/000', '.seg.png')
    """
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = last.partition(".")
    return folder + slash + stem, dot + suffix


def limit_of(name: str) -> Limit | None:
    """How large a file of a data set may be, by its name; None where it is none."""
    if is_picture(name) or is_tar(name):
        return FILE_BYTES
    return TEXT_BYTES if is_wanted(name) else None


def make_samples(key: str | None, members: list[tuple[str, Content]]) -> Iterator[Sample | Failure]:
    """The sample of one key: its first picture, and the companions that it has.

    One that lacks something which could not be read is a failure.
    """
    pictures = [(suffix, content) for suffix, content in members if is_picture("_" + suffix)]
    if key is None or not pictures:
        return
    suffix, picture = pictures[0]
    try:
        whole = [(suffix, _require(key + suffix, content)) for suffix, content in members]
        annotations = read_annotations(key, whole)
        yield Sample(key, key + suffix, _require(key + suffix, picture), annotations)
    except InputImageError as error:
        yield Failure(key, "read", str(error))
    for suffix, _ in pictures[1:]:
        yield Failure(key, "read", f"{key}{suffix}: another picture has this key")


def _require(name: str, content: Content) -> bytes:
    if isinstance(content, str):
        raise InputImageError(f"{name}: {content}")
    return content


def read_annotations(key: str, members: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Caption, label and metadata from the companions of a key; see `_COMPANIONS`.

    Raises InputImageError, with the companion's name, where one is not what its suffix says, or is
    nested without end.
    """
    annotations: dict[str, Any] = {}
    for suffix, content in members:
        if suffix.lower() not in _COMPANIONS:
            continue
        field, expected, read = _COMPANIONS[suffix.lower()]
        try:
            annotations[field] = read(content)
            check_depth(annotations)
        except ValueError as error:
            raise InputImageError(
                f"{key}{suffix}: a damaged companion: expected {expected}: {error}"
            ) from error
    return annotations


def _text(content: bytes) -> str:
    return content.decode().strip()


# suffix => what it is of a sample, what it is expected to be, how it is read
_COMPANIONS: dict[str, tuple[str, str, Callable[[bytes], Any]]] = {
    ".txt": ("caption", "UTF-8 text", _text),
    ".caption": ("caption", "UTF-8 text", _text),
    ".cls": ("label", "an integer", lambda content: read_as(int, int(content))),
    ".json": ("metadata", "JSON", read_json),
}


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
        """Read what is left; why that is not done, if there is too much of it."""
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


def _sha256(file: SourceFile) -> str:
    with open_storage(file.root).open(file.entry.name) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
