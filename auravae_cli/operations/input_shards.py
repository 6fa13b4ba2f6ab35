"""From files to input shards: tars as they are, loose pictures dealt out by name.

A tar is a WebDataset shard: its members up to the first dot of their names are one sample, as in
``000123.jpg``, ``000123.txt``, ``000123.json``. Loose pictures have such companions beside them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from auravae_cli.errors import InputImageError
from auravae_cli.operations.sources import TARS, SourceFile, is_picture, stem
from auravae_cli.store.format import file_shard


@dataclass(frozen=True)
class InputShard:
    """What one shard of a store is made from: a tar, or loose files in the order of their keys."""

    name: str
    files: tuple[SourceFile, ...]
    is_tar: bool

    @property
    def size(self) -> int:
        """The bytes to be read."""
        return sum(file.entry.size for file in self.files)


def count_file_shards(files: list[SourceFile], shard_size: int) -> int:
    """Into how many shards to deal loose pictures."""
    pictures = sum(is_picture(file.key) for file in files)
    return max(1, -(-pictures // shard_size))


def make_shards(
    files: list[SourceFile], num_file_shards: int, containers: tuple[str, ...] = TARS
) -> list[InputShard]:
    """The input shards, in the order of their names.

    Files whose names end in one of ``containers`` are a shard each.

    Loose files go to the shard that the hash of their key says, so that one picture more changes
    one shard alone. A shard that no picture falls to is empty, for it may have had some.

    Raises:
        InputImageError: two tars would give the same shard, or one that of loose files.
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
    for index in range(num_file_shards if loose else 0):
        name = file_shard(index)
        if name in shards:
            raise InputImageError(f"{name}: a tar may not have this name beside loose pictures")
        shards[name] = InputShard(name, tuple(loose[index]), False)
    return [shards[name] for name in sorted(shards)]
