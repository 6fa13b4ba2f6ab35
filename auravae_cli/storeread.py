"""The latents of a finished store by number: memory-mapped when first touched, never all at once.

::

    STORE --LatentStore--> files with their shapes --locate--> file and row
                                  |--values--> [N, C, h, w]     |--Facts--> key, label, padding, ...

Opening reads the settings and the manifests alone. Needs numpy alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from auravae_cli.dtypes import Array
from auravae_cli.errors import LatentFileError, StoreError
from auravae_cli.latentfile import parse_latents
from auravae_cli.record import Record
from auravae_cli.storage import LocalStorage, is_remote
from auravae_cli.store import Manifest, Output, Settings, read_manifest, read_settings, shards_of

OPEN_MAPS = 256  # each holds a file descriptor, of which a process often has 1024
CACHED_FACTS = 1 << 22  # values of fields that a process remembers

Value = TypeVar("Value")

FIELDS: dict[str, Callable[[Record], Any]] = {
    "key": lambda record: record.key,
    "caption": lambda record: record.annotations.get("caption"),
    "label": lambda record: record.annotations.get("label"),
    "metadata": lambda record: record.annotations.get("metadata"),
    "image_size": lambda record: record.image_size,
    "padding": lambda record: record.padding,
    "orientation": lambda record: record.orientation,
    "source": lambda record: record.source,
    "source_sha256": lambda record: record.source_sha256,
    "source_size": lambda record: record.source_size,
    "source_box": lambda record: record.source_box and record.source_box.as_tuple(),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A file of latents: ``shape`` is [N, C, h, w]; the values start at byte ``start``.

    Its rows are rows ``first`` to ``first + N - 1`` of the store.
    """

    name: str
    size: int
    shape: tuple[int, ...]
    start: int
    first: int


class LatentStore:
    """A store on this machine, for reading. ``len`` is the number of its latents.

    May be pickled and forked: every process opens its own maps.

    Raises:
        StoreError: no store is there, it is remote or empty, or it is not what its manifests say.
    """

    def __init__(self, location: str | Path) -> None:
        if is_remote(str(location)):
            raise StoreError(
                f"{location}: latents are read at random, which a remote store is too slow for: copy it "
                f"next to the trainer first, e.g. with `aws s3 sync {location} STORE`"
            )
        self._storage = LocalStorage(Path(str(location).removeprefix("file://")))
        self.root = self._storage.root
        self.settings = _settings(self._storage)
        self.parts = tuple(_parts(self._storage, self.settings))
        self.firsts = np.array([part.first for part in self.parts], np.int64)
        self._ends = [part.first + part.shape[0] for part in self.parts]
        if not len(self):
            raise StoreError(
                f"{self.root}: an empty store: no shard is finished, or none has a latent; "
                f"`auravae info {self.root}` counts them"
            )
        self._maps = Recent(self._map, OPEN_MAPS)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[int, int]:
        """The number of the part that row ``index`` lies in, and the row in it; IndexError."""
        if not 0 <= index < self._ends[-1]:
            raise IndexError(f"row {index} of a store of {self._ends[-1]}")
        number = bisect_right(self._ends, index)
        return number, index - self.parts[number].first

    def values(self, number: int) -> Array:
        """The stored values of a part, [N, C, h, w], as a view of its map. Raises StoreError."""
        return self._maps(number)

    def records(self, number: int) -> tuple[Record, ...]:
        """The records of a part, read from its header. Raises StoreError."""
        part = self.parts[number]
        try:
            return parse_latents(self._bytes(part)).records
        except LatentFileError as error:
            raise StoreError(f"{self.root}/{part.name}: {error}") from error

    def parts_by_shape(self) -> dict[tuple[int, ...], list[int]]:
        """The numbers of the parts of each latent shape [C, h, w]; none of those without rows."""
        found: dict[tuple[int, ...], list[int]] = {}
        for number, part in enumerate(self.parts):
            if part.shape[0]:
                found.setdefault(part.shape[1:], []).append(number)
        return found

    def _map(self, number: int) -> Array:
        part, dtype = self.parts[number], self.settings.stored_dtype.numpy
        values = np.frombuffer(self._bytes(part), dtype, math.prod(part.shape), part.start)
        return values.reshape(part.shape)

    def _bytes(self, part: Part) -> memoryview:
        try:
            content = self._storage.map(part.name)
        except FileNotFoundError:
            raise _gone(self.root, part.name) from None
        if len(content) != part.size:
            raise _resized(self.root, part.name, len(content), part.size)
        return content


class Concatenation:
    """Some parts of a store, one after the other: from positions in them to rows of the store."""

    def __init__(self, store: LatentStore, numbers: Iterable[int]) -> None:
        order = np.fromiter(numbers, np.int64)
        lengths = np.array([store.parts[number].shape[0] for number in order], np.int64)
        self._ends = np.cumsum(lengths)
        self._shift = store.firsts[order] - (self._ends - lengths)
        self.length = int(self._ends[-1])

    def rows(self, positions: NDArray[Any]) -> NDArray[np.int64]:
        """The rows of the store that stand at ``positions``, each below ``length``."""
        shift = self._shift[np.searchsorted(self._ends, positions, side="right")]
        return positions.astype(np.int64) + shift


class Facts:
    """What records say in some ``fields``; ``missing`` stands in where a record says nothing.

    A file's header is parsed whole at the first question about one of its rows, and its fields are
    remembered, up to `CACHED_FACTS` values. Raises ValueError where a field is unknown.
    """

    def __init__(
        self, store: LatentStore, fields: Iterable[str], missing: Mapping[str, Any]
    ) -> None:
        self.fields, self._store, self._missing = tuple(fields), store, dict(missing)
        for field in (*self.fields, *self._missing):
            if field not in FIELDS:
                raise ValueError(f"unknown field {field!r}: expected some of {', '.join(FIELDS)}")
        budget = CACHED_FACTS // max(1, len(self.fields))
        self._columns: Recent[list[tuple[Any, ...]]] = Recent(self._read, budget, len)

    def of(self, number: int, row: int) -> dict[str, Any]:
        """The fields of a row of a part. Raises StoreError where a record lacks one."""
        facts = dict(zip(self.fields, self._columns(number)[row], strict=True))
        if None in facts.values():
            self._complete(facts, number, row)
        return facts

    def _read(self, number: int) -> list[tuple[Any, ...]]:
        getters = [FIELDS[field] for field in self.fields]
        return [tuple([get(r) for get in getters]) for r in self._store.records(number)]

    def _complete(self, facts: dict[str, Any], number: int, row: int) -> None:
        for field in [field for field, value in facts.items() if value is None]:
            if field not in self._missing:
                place = f"{self._store.root}/{self._store.parts[number].name}, row {row}"
                raise StoreError(
                    f"{place}: its record has no {field}: ask for other fields, or say what "
                    f"stands in its place, as in missing={{{field!r}: ...}}"
                )
            facts[field] = self._missing[field]


class Recent(Generic[Value]):
    """Values by number, made when they are asked for; the latest stay, up to a total ``budget``.

    Has no lock, since a fork could copy it held: at worst two threads make the same value.
    """

    def __init__(
        self, make: Callable[[int], Value], budget: int, cost: Callable[[Value], int] | None = None
    ) -> None:
        self._make, self._budget, self._cost = make, budget, cost or _one
        self._kept: OrderedDict[int, Value] = OrderedDict()
        self._total = 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": OrderedDict(), "_total": 0}

    def __call__(self, number: int) -> Value:
        try:
            self._kept.move_to_end(number)
            return self._kept[number]
        except KeyError:
            value = self._kept[number] = self._make(number)
        self._total += self._cost(value)
        while self._total > self._budget and len(self._kept) > 1:
            self._total -= self._cost(self._kept.popitem(last=False)[1])
        return value


def _one(_: Any) -> int:
    return 1


def _settings(storage: LocalStorage) -> Settings:
    settings = read_settings(storage)
    if settings is None:
        raise StoreError(
            f"{storage.root}: not a store: no store.json is there; a store is what "
            "`auravae encode` makes of a data set"
        )
    return settings


def _parts(storage: LocalStorage, settings: Settings) -> Iterable[Part]:
    entries = list(storage.entries())
    sizes = {entry.name: entry.size for entry in entries}
    first = 0
    for shard in shards_of(entries):
        manifest = read_manifest(storage, shard)
        if manifest is None:  # taken away since it was listed
            continue
        _check_settings(storage.root, manifest, settings)
        for output in manifest.outputs:
            yield _part(storage.root, output, sizes.get(output.name), settings, first)
            first += output.shape[0]


def _check_settings(root: str, manifest: Manifest, settings: Settings) -> None:
    if manifest.settings_sha256 != settings.sha256:
        raise StoreError(
            f"{root}: shard {manifest.shard!r} was made with other settings than store.json's; "
            "encode it again, or read it as a store of its own"
        )


def _part(root: str, output: Output, found: int | None, settings: Settings, first: int) -> Part:
    if found is None:
        raise _gone(root, output.name)
    if found != output.size:
        raise _resized(root, output.name, found, output.size)
    start = found - math.prod(output.shape) * settings.stored_dtype.numpy.itemsize
    if len(output.shape) != 4 or output.shape[1] != settings.space.irreps.dim or start < 8:
        raise StoreError(
            f"{root}/{output.name}: {found} bytes cannot hold latents of shape {list(output.shape)} "
            f"in {settings.stored_dtype.name}, which is what its manifest says"
        )
    return Part(output.name, output.size, output.shape, start, first)


def _gone(root: str, name: str) -> StoreError:
    return StoreError(
        f"{root}/{name}: missing, though its manifest names it: copy it again, or remove the "
        "manifest and run encode again"
    )


def _resized(root: str, name: str, found: int, expected: int) -> StoreError:
    return StoreError(
        f"{root}/{name}: {found} bytes, but its manifest says {expected}: cut off, or changed "
        "afterwards; copy it again, or remove the manifest and run encode again"
    )
