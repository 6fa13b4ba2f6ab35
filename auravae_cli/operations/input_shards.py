"""Group files into input shards: each tar is one, loose pictures are distributed by name.

A tar is a WebDataset shard: members whose names agree up to the first dot form one sample, such as
``000123.jpg``, ``000123.txt``, ``000123.json``. Loose pictures have such companions beside them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from auravae_cli.errors import InputImageError
from auravae_cli.operations.sources import SourceFile, stem
from auravae_cli.operations.suffixes import TARS, is_picture
from auravae_cli.store.names import file_shard


@dataclass(frozen=True)
class InputShard:
    """The input of one shard of a store: a tar, or loose files in the order of their keys."""

    name: str
    files: tuple[SourceFile, ...]
    is_tar: bool

    @property
    def size(self) -> int:
        """The bytes to read."""
        return sum(file.entry.size for file in self.files)


def count_file_shards(files: list[SourceFile], shard_size: int) -> int:
    """Return the number of shards for loose pictures."""
    pictures = sum(is_picture(file.key) for file in files)
    return max(1, -(-pictures // shard_size))


def make_shards(
    files: list[SourceFile],
    num_file_shards: int,
    containers: tuple[str, ...] = TARS,
    *,
    has_loose: bool = False,
) -> list[InputShard]:
    """Return the input shards, in the order of their names.

    Each file whose name ends in one of ``containers`` is a shard.

    The hash of its key decides which shard a loose file goes to, so adding a picture changes only one
    shard. A shard without pictures is kept, empty, since it may have had some; with ``has_loose``, even if
    there is no loose file at all.

    Raises:
        InputImageError: two tars, or a tar and loose files, would make the same shard.
    """
    shards: dict[str, InputShard] = {}
    loose: defaultdict[int, list[SourceFile]] = defaultdict(list)
    for file in files:
        if file.key.lower().endswith(containers):
            suffix = next(kind for kind in containers if file.key.lower().endswith(kind))
            name = file.key[: -len(suffix)]
            if name in shards:
                raise InputImageError(f"{file.key}: another tar makes shard {name!r} already")
            shards[name] = InputShard(name, (file,), True)
        else:
            digest = hashlib.sha256(stem(file.key).encode(errors="surrogatepass")).digest()
            loose[int.from_bytes(digest[:8], "big") % num_file_shards].append(file)
    for index in range(num_file_shards if loose or has_loose else 0):
        name = file_shard(index)
        if name in shards:
            raise InputImageError(f"{name}: a tar may not have this name beside loose pictures")
        shards[name] = InputShard(name, tuple(loose[index]), False)
    return [shards[name] for name in sorted(shards)]
