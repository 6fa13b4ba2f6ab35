"""The format of a store of latents: its settings, and the manifest of each shard.

::

       STORE/store.json                the settings, which every shard shares
       STORE/00000.32x48.safetensors   the latents of input shard 00000 that have 32 x 48 cells;
                                       if it is full, more of them in 00000.32x48.1.safetensors
       STORE/00000.failures.jsonl      the failed inputs, if any: one JSON object per line
       STORE/00000.manifest.json       its manifest, written last: it marks the shard as done
       STORE/00000.pending.json        while rows that are kept move to a new version: the manifests of both

All JSON is canonical, and no file depends on when or where it was written, so equal sources and
settings give equal stores. Needs only numpy.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from auravae_cli.errors import StoreError
from auravae_cli.files.canonical_json import canonical, read_json
from auravae_cli.files.kinds import kind_of_file
from auravae_cli.files.places import fault_of, local_name
from auravae_cli.files.storage import Entry, Storage, is_remote
from auravae_cli.files.typed import Faults, Natural, Positive, read_as, shown, table
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.latents.latent_file import LatentSpace, space_from_json, space_to_json

FORMAT_VERSION = 1
SETTINGS_FILE = "store.json"
SHOWN_MISSING = 10  # of shards; the others are only counted
MANIFEST, LEDGER, PENDING = ".manifest.json", ".failures.jsonl", ".pending.json"
_FILE_SHARD = re.compile(r"files-(\d{5,18})")
_LONGEST_NAME = 255 - len(".99999x99999.9999.safetensors")  # of a shard, in bytes


def is_store(location: str) -> bool:
    """Return whether a path or URL, which may be a file's, is taken as a store's; any URL is."""
    place = os.path.join(local_name(location), SETTINGS_FILE)  # noqa: PTH118 - the two
    return is_remote(location) or os.path.isfile(place)  # noqa: PTH113 - never raise


@dataclass(frozen=True)
class StoreSettings:
    """What all latents of a store have in common.

    ``preparation`` is `Preparation.to_json`; ``compute_dtype`` is the network's number format;
    ``num_file_shards`` is the number of shards that loose files, but not tars, are distributed over;
    ``kernels`` tells whose kernels computed (`Codec.kernels`), and ``symmetry`` how flips were made exact.
    Last bits depend on both; None if not known, as in older stores. ``picture`` names the picture that
    counts of samples with several (`make_samples`); None for the default.
    """

    space: LatentSpace
    stored_dtype: StoredDtype
    compute_dtype: str
    preparation: dict[str, Any]
    num_file_shards: int = 1
    kernels: str | None = None
    symmetry: str | None = None
    picture: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``store.json``."""
        return {
            "format": "auravae-store",
            "format_version": FORMAT_VERSION,
            **space_to_json(self.space),
            "stored_dtype": self.stored_dtype.name,
            "compute_dtype": self.compute_dtype,
            "preparation": self.preparation,
            "num_file_shards": self.num_file_shards,
            **({} if self.kernels is None else {"kernels": self.kernels}),
            **({} if self.symmetry is None else {"symmetry": self.symmetry}),
            **({} if self.picture is None else {"picture": self.picture}),
        }

    def as_known_to(self, found: StoreSettings) -> StoreSettings:
        """These settings, to go on with a store of ``found``: without what that does not know of itself.

        A model of the same weights has the name that the store knows it by.
        """
        return replace(
            self,
            space=found.space if self.space.is_same(found.space) else self.space,
            kernels=None if found.kernels is None else self.kernels,
            symmetry=None if found.symmetry is None else self.symmetry,
        )

    @property
    def sha256(self) -> str:
        """The sha256 of the canonical JSON, which manifests refer to."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()


@dataclass(frozen=True)
class SourceState:
    """A file that a shard was made from: its name, its content, and its version when it was read."""

    name: str
    size: Natural
    version: str
    sha256: str

    def is_still(self, entry: Entry) -> bool:
        """Return whether ``entry`` is certainly this file: nothing that is cheap to check has changed."""
        return bool(self.version) and (self.size, self.version) == (entry.size, entry.version)


@dataclass(frozen=True)
class Output:
    """A file of latents: ``shape`` is [N, C, h, w]."""

    name: str
    size: Natural
    sha256: str
    shape: tuple[Positive, Positive, Positive, Positive]


@dataclass(frozen=True)
class Manifest:
    """What one finished shard holds, and what it was made from."""

    shard: str
    settings_sha256: str
    sources: tuple[SourceState, ...]
    outputs: tuple[Output, ...]
    failures: Natural

    @property
    def faults(self) -> list[str]:
        """Contradictions, such as names of files that do not belong to this shard or to any store."""
        fault = fault_of(self.shard)
        return [f"shard: {self.shard!r} {fault}"] * bool(fault) + [
            f"outputs: {output.name!r} is no file of shard {self.shard!r}"
            for output in self.outputs
            if output.name != output_name(self.shard, output.shape[-2:], part_of(output.name))
        ]

    @property
    def rows(self) -> int:
        """The number of latents."""
        return sum(output.shape[0] for output in self.outputs)

    @property
    def size(self) -> int:
        """The size of its files of latents in bytes."""
        return sum(output.size for output in self.outputs)

    def to_bytes(self) -> bytes:
        """Return the manifest's file."""
        return canonical(
            {"format": "auravae-shard", "format_version": FORMAT_VERSION, "rows": self.rows}
            | asdict(self)
        )


@dataclass(frozen=True)
class Pending:
    """Two versions of a shard, of which the store's files can be either: a run was cut off between them."""

    old: Manifest
    new: Manifest


@dataclass(frozen=True)
class Failure:
    """An input without a latent, or a companion that it lacks: ``stage`` is where it failed, ``reason`` why.

    Stages: ``archive`` (the tar itself), ``read``, ``decode`` (and preparation), ``encode``.
    """

    key: str | None
    stage: str
    reason: str


def manifest_name(shard: str) -> str:
    """Return the file that marks the shard as done."""
    return f"{shard}{MANIFEST}"


def failures_name(shard: str) -> str:
    """Return the file name of the shard's error ledger."""
    return f"{shard}{LEDGER}"


def pending_name(shard: str) -> str:
    """Return the file that tells, while a shard is replaced, of both versions."""
    return f"{shard}{PENDING}"


def output_name(shard: str, cells: tuple[int, ...], part: int = 0) -> str:
    """Return the file of a shard's latents of (h, w) cells; ``part`` counts if one file cannot hold all."""
    number = f".{part}" if part else ""
    return f"{shard}.{cells[0]}x{cells[1]}{number}.safetensors"


def require_short(shard: str) -> None:
    """Raise StoreError if file systems do not accept names as long as those of this shard's files."""
    longest = max(shard.split("/"), key=len)
    size = len(longest.encode(errors="surrogateescape"))
    if size > _LONGEST_NAME:
        raise StoreError(
            f"{longest[:40]}...: a name of {size} bytes: with what its files add to it, names may have "
            f"{_LONGEST_NAME}; rename it"
        )


def part_of(name: str) -> int:
    """Return the part number of such a file; 0 for the first.

    >>> part_of("00000.32x48.safetensors"), part_of("00000.32x48.12.safetensors")
    (0, 12)
    """
    match = re.search(r"\.\d+x\d+\.([1-9]\d{0,8})\.safetensors$", name)
    return int(match[1]) if match else 0


def shard_of(name: str) -> str | None:
    """Return the shard that a store's file belongs to, by the file's name; None if it is not a shard's.

    >>> shard_of("a/00000.32x48.safetensors"), shard_of("a/00000.32x48.1.safetensors")
    ('a/00000', 'a/00000')
    >>> shard_of("store.json")
    """
    match = re.fullmatch(
        rf"(?s)(.+?)({re.escape(MANIFEST)}|{re.escape(LEDGER)}|{re.escape(PENDING)}|\.\d+x\d+(\.\d+)?\.safetensors)",
        name,
    )
    return match and match[1]


def read_settings(storage: Storage) -> StoreSettings | None:
    """Return the settings of a store; None if there is no store. Raises StoreError."""
    if is_file(storage):
        return None
    try:
        content = read_json(storage.read(SETTINGS_FILE))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{storage.root}/{SETTINGS_FILE}: damaged: {error}") from error
    try:
        require_format(content, "auravae-store", FORMAT_VERSION)
        found = _read_settings(content)
        return StoreSettings(space_from_json(content), **found)
    except ValueError as error:
        raise StoreError(
            f"{storage.root}/{SETTINGS_FILE}: no store that this auravae reads: {error}"
        ) from error


def require_format(content: Any, name: str, version: int) -> None:
    """Raise Faults unless a file's JSON states this format and version."""
    found = _read_format(content)
    if (found["format"], found["format_version"]) != (name, version):
        raise Faults(
            [
                f"format: found {shown(found['format'])}, version {found['format_version']}: this "
                f"auravae reads {name}, version {version}"
            ]
        )


_read_format = table({"format": str, "format_version": int}, others=True)
_read_settings = table(
    {
        "stored_dtype": StoredDtype,
        "compute_dtype": str,
        "preparation": dict[str, Any],
        "num_file_shards": Positive,
        "kernels": str,
        "symmetry": str,
        "picture": str,
    },
    optional=("kernels", "symmetry", "picture"),
    others=True,
)


def has_all(manifest: Manifest, settings: StoreSettings, sizes: Mapping[str, int]) -> bool:
    """Return whether a store of these settings has all of a shard's files, by their names and ``sizes``."""
    return (
        manifest.settings_sha256 == settings.sha256
        and all(sizes.get(output.name) == output.size for output in manifest.outputs)
        and (failures_name(manifest.shard) in sizes) == (manifest.failures > 0)
    )


def names_by_shard(names: Iterable[str]) -> Mapping[str | None, list[str]]:
    """Group a store's files by the shard that they belong to."""
    shards: defaultdict[str | None, list[str]] = defaultdict(list)
    for name in names:
        shards[shard_of(name)].append(name)
    return shards


def require_settings(storage: Storage) -> StoreSettings:
    """Return the settings of a store. Raises StoreError if there is none."""
    settings = read_settings(storage)
    if settings is None:
        raise StoreError(f"{storage.root}: {why_no_store(storage)}")
    return settings


def why_no_store(storage: Storage) -> str:
    """Return why a place without settings is no store: what it is instead, if that is known."""
    if is_file(storage):
        kind = kind_of_file(Path(storage.root))
        return str(kind or "a file: expected a store, which is a folder")
    return f"not a store: no {SETTINGS_FILE} is there; a store is what `auravae encode` makes of a dataset"


def is_file(storage: Storage) -> bool:
    """Return whether a place is a local file, and so no store."""
    return not is_remote(storage.root) and os.path.isfile(storage.root)  # noqa: PTH113 - never raises


def read_manifest(storage: Storage, shard: str) -> Manifest | None:
    """Return the manifest of a shard; None if it is not done. Raises StoreError."""
    name = manifest_name(shard)
    try:
        content = read_json(storage.read(name))
        require_format(content, "auravae-shard", FORMAT_VERSION)
        counts = ("format", "format_version", "rows")
        return read_as(Manifest, {n: value for n, value in content.items() if n not in counts})
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{storage.root}/{name}: damaged manifest ({error}); remove it to have the shard made again"
        ) from error


def find_manifest(storage: Storage, shard: str) -> Manifest | None:
    """Return the manifest of a shard; None if it is not done, or its manifest is damaged or another's."""
    try:
        manifest = read_manifest(storage, shard)
    except StoreError:
        return None
    return manifest if manifest is not None and manifest.shard == shard else None


def read_pending(storage: Storage, shard: str) -> Pending | None:
    """Return both versions of a shard that a run was replacing when it was cut off; None if there are none."""
    try:
        found = read_as(Pending, read_json(storage.read(pending_name(shard))))
    except (FileNotFoundError, ValueError):
        return None
    return found if found.old.shard == found.new.shard == shard else None


def read_failures(storage: Storage, shard: str) -> list[Failure]:
    """Return the error ledger of a shard; empty if nothing failed. Raises StoreError."""
    name = failures_name(shard)
    try:
        lines = storage.read(name).splitlines()
    except FileNotFoundError:
        return []
    failures = []
    for number, line in enumerate(lines, 1):
        try:
            failures.append(read_as(Failure, read_json(line)))
        except ValueError as error:
            raise StoreError(
                f"{storage.root}/{name}: damaged ledger: line {number}: {error}"
            ) from error
    return failures


def file_shard(index: int) -> str:
    """Return the name of a shard of loose files."""
    return f"files-{index:05d}"


def missing_shards(settings: StoreSettings, shards: Collection[str]) -> tuple[int, list[str]]:
    """Return how many shards of loose files a store lacks, and the names of the first `SHOWN_MISSING`.

    A complete store has all of them, even those without a file. Tars are not counted, since a store
    cannot tell how many it was made from.
    """
    number, finished = settings.num_file_shards, set(shards)
    found = sum(1 for shard in finished if _is_file_shard(shard, number))
    if found == number or (found == 0 and number == 1):
        return 0, []
    names = (name for index in range(number) if (name := file_shard(index)) not in finished)
    return number - found, list(islice(names, SHOWN_MISSING))


def is_file_shard(shard: str | None) -> bool:
    """Return whether a name is that of a shard of loose files."""
    return shard is not None and _FILE_SHARD.fullmatch(shard) is not None


def _is_file_shard(shard: str, number: int) -> bool:
    match = _FILE_SHARD.fullmatch(shard)
    return match is not None and int(match[1]) < number and file_shard(int(match[1])) == shard


def shards_of(entries: list[Entry]) -> list[str]:
    """Return the finished shards, by the names of a store's files."""
    return sorted(
        entry.name.removesuffix(MANIFEST) for entry in entries if entry.name.endswith(MANIFEST)
    )


def iterate_manifests(storage: Storage) -> Iterator[Manifest]:
    """Yield the manifests of all finished shards, in order. Raises StoreError."""
    for shard in shards_of(list(storage.entries())):
        manifest = read_manifest(storage, shard)
        if manifest is not None:
            yield manifest
