"""The files of a store of latents, and their names.

::

       STORE/store.json                the settings, which every shard shares
       STORE/00000.32x48.safetensors   the latents of input shard 00000 that have 32 x 48 cells;
                                       if it is full, more of them in 00000.32x48.1.safetensors
       STORE/00000.failures.jsonl      the failed inputs, if any: one JSON object per line
       STORE/00000.manifest.json       its manifest, written last: it marks the shard as done
       STORE/00000.pending.json        while rows that are kept move to a new version: the manifests of both

All JSON is canonical, and no file depends on when or where it was written, so equal sources and
settings give equal stores.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from auravae_cli.errors import StoreError
from auravae_cli.files.kinds import SETTINGS_FILE as SETTINGS_FILE
from auravae_cli.files.places import is_remote

if TYPE_CHECKING:
    from auravae_cli.files.storage import Entry

MANIFEST, LEDGER, PENDING = ".manifest.json", ".failures.jsonl", ".pending.json"
_FILE_SHARD = re.compile(r"files-(\d{5,18})")
# Endings of a URL that no store has: it is that of one file.
_OF_FILES = (".safetensors", ".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff")
_LONGEST_NAME = 255 - len(".99999x99999.9999.safetensors")  # of a shard, in bytes


def is_store(location: str) -> bool:
    """Return whether a path or URL, which may be a file's, is taken as a store's.

    Any URL is, but for one of a latent file or a picture.
    """
    if is_remote(location):
        return not location.lower().endswith(_OF_FILES)
    return os.path.isfile(os.path.join(location, SETTINGS_FILE))  # noqa: PTH118


def manifest_name(shard: str) -> str:
    """Return the file that marks the shard as done."""
    return f"{shard}{MANIFEST}"


def failures_name(shard: str) -> str:
    """Return the file name of the shard's error ledger."""
    return f"{shard}{LEDGER}"


def pending_name(shard: str) -> str:
    """Return the file that records both versions while a shard is replaced."""
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


def names_by_shard(names: Iterable[str]) -> Mapping[str | None, list[str]]:
    """Group a store's files by the shard that they belong to."""
    shards: defaultdict[str | None, list[str]] = defaultdict(list)
    for name in names:
        shards[shard_of(name)].append(name)
    return shards


def file_shard(index: int) -> str:
    """Return the name of a shard of loose files."""
    return f"files-{index:05d}"


def shard_index(shard: str | None) -> int | None:
    """Return the number of a shard of loose files; None for any other name.

    >>> shard_index("files-00012"), shard_index("files-12"), shard_index("photos")
    (12, None, None)
    """
    match = shard and _FILE_SHARD.fullmatch(shard)
    index = int(match[1]) if match else None
    return index if index is None or file_shard(index) == shard else None


def shards_of(entries: list[Entry]) -> list[str]:
    """Return the finished shards, by the names of a store's files."""
    return sorted(
        entry.name.removesuffix(MANIFEST) for entry in entries if entry.name.endswith(MANIFEST)
    )
