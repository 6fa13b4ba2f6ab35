"""Random access to the latents of a finished store, memory-mapped on first use.

::

    STORE --LatentStore--> files with their shapes --locate--> file and row
                                  |--values--> [N, C, h, w]     |--Facts--> key, label, padding, ...

Opening a store reads only the settings and the manifests. Needs only numpy.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import LatentFileError, StoreError
from auravae_cli.files.lru import LruCache
from auravae_cli.files.places import is_remote, local_name
from auravae_cli.files.storage import LocalStorage
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile, parse_latents
from auravae_cli.latents.record import Record
from auravae_cli.store.manifest import Manifest, Output, read_manifest
from auravae_cli.store.names import shards_of
from auravae_cli.store.settings import StoreSettings, require_settings

OPEN_MAPS = 256  # at most: each holds a file descriptor; and at most
SHARE_OF_FILES = 0.25  # this share of the files that the process may open


@dataclass(frozen=True, slots=True)
class StorePart:
    """A file of latents: ``shape`` is [N, C, h, w]; the values start at byte ``start``.

    Its rows are rows ``first`` to ``first + N - 1`` of the store.
    """

    name: str
    size: int
    shape: tuple[int, ...]
    start: int
    first: int


def _copying(location: str) -> str:
    """Return a command that copies a remote store here."""
    scheme, _, path = location.partition("://")
    kind, *repo = path.split("/")
    if scheme != "hf" or kind != "datasets" or len(repo) < 2:
        return f"aws s3 sync {location} STORE"
    folder = "/".join(repo[2:])
    files = f" --include '{folder}/*'" if folder else ""
    return f"hf download --repo-type dataset {'/'.join(repo[:2])}{files} --local-dir STORE"


class LatentStore:
    """A store on this machine, for reading. ``len`` is the number of its latents.

    Can be pickled and forked: every process opens its own maps.

    Raises:
        StoreError: there is no store, it is remote or empty, or it contradicts its manifests.
    """

    def __init__(self, location: str | Path) -> None:
        if is_remote(str(location)):
            raise StoreError(
                f"{location}: latents are read at random, which a remote store is too slow for: copy it "
                f"next to the trainer first, e.g. with `{_copying(str(location))}`"
            )
        self._storage = LocalStorage(Path(local_name(str(location))))
        self.root = self._storage.root
        self.settings = require_settings(self._storage)
        self.parts = tuple(_parts(self._storage, self.settings))
        self.firsts = np.array([part.first for part in self.parts], np.int64)
        self._ends = [part.first + part.shape[0] for part in self.parts]
        if not len(self):
            raise StoreError(
                f"{self.root}: an empty store: no shard is finished, or none has a latent; "
                f"`auravae info {self.root}` counts them"
            )
        self._maps = LruCache(self._map, _open_maps())

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[int, int]:
        """Return the part that row ``index`` is in, and the row within it. Raises IndexError."""
        if not 0 <= index < self._ends[-1]:
            raise IndexError(f"row {index} of a store of {self._ends[-1]}")
        number = bisect_right(self._ends, index)
        return number, index - self.parts[number].first

    def values(self, number: int) -> Array:
        """Return the stored values of a part, [N, C, h, w], as a view of its map. Raises StoreError."""
        return self._maps(number)

    def records(self, number: int) -> tuple[Record, ...]:
        """Return the records of a part, read from its header. Raises StoreError."""
        return self.latents(number).records

    def latents(self, number: int) -> LatentFile:
        """Return a part as a file of latents, memory-mapped. Raises StoreError."""
        part = self.parts[number]
        try:
            return parse_latents(self._bytes(part))
        except LatentFileError as error:
            raise StoreError(f"{self.root}/{part.name}: {error}") from error

    def parts_by_shape(self) -> dict[tuple[int, ...], list[int]]:
        """Return the parts with rows, grouped by latent shape [C, h, w]."""
        found: dict[tuple[int, ...], list[int]] = {}
        for number, part in enumerate(self.parts):
            if part.shape[0]:
                found.setdefault(part.shape[1:], []).append(number)
        return found

    def _map(self, number: int) -> Array:
        part, dtype = self.parts[number], self.settings.stored_dtype.numpy
        values = np.frombuffer(self._bytes(part), dtype, math.prod(part.shape), part.start)
        return values.reshape(part.shape)

    def _bytes(self, part: StorePart) -> memoryview:
        try:
            content = self._storage.map(part.name)
        except FileNotFoundError:
            raise _gone(self.root, part.name) from None
        if len(content) != part.size:
            raise _resized(self.root, part.name, len(content), part.size)
        return content


class Concatenation:
    """Some parts of a store, concatenated: maps positions in them to rows of the store."""

    def __init__(self, store: LatentStore, numbers: Iterable[int]) -> None:
        order = np.fromiter(numbers, np.int64)
        lengths = np.array([store.parts[number].shape[0] for number in order], np.int64)
        self._ends = np.cumsum(lengths)
        self._shift = store.firsts[order] - (self._ends - lengths)
        self.length = int(self._ends[-1])

    def rows(self, positions: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rows of the store at ``positions``, each below ``length``."""
        shift = self._shift[np.searchsorted(self._ends, positions, side="right")]
        return positions.astype(np.int64) + shift


def _open_maps() -> int:
    """Return how many maps may be open."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return OPEN_MAPS
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return OPEN_MAPS
    return max(1, min(OPEN_MAPS, int(SHARE_OF_FILES * most)))


def _parts(storage: LocalStorage, settings: StoreSettings) -> Iterable[StorePart]:
    entries = list(storage.entries())
    sizes = {entry.name: entry.size for entry in entries}
    first = 0
    for shard in shards_of(entries):
        manifest = read_manifest(storage, shard)
        if manifest is None:  # removed since it was listed
            continue
        _check_settings(storage.root, manifest, settings)
        for output in manifest.outputs:
            yield _part(storage.root, output, sizes.get(output.name), settings, first)
            first += output.shape[0]


def _check_settings(root: str, manifest: Manifest, settings: StoreSettings) -> None:
    if manifest.settings_sha256 != settings.sha256:
        raise StoreError(
            f"{root}: shard {manifest.shard!r} was made with other settings than store.json's; "
            "encode it again, or read it as a store of its own"
        )


def _part(
    root: str, output: Output, found: int | None, settings: StoreSettings, first: int
) -> StorePart:
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
    return StorePart(output.name, output.size, output.shape, start, first)


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
