"""Turn the members of a tar, in order, into samples, like webdataset 1.0.2, but without losing any.

webdataset joins only adjacent members. Here a caption elsewhere still belongs to its picture; if that
has been passed on already, the caption is sent after it (`late`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.operations.sample import (
    Content,
    Member,
    Sample,
    has_picture,
    make_samples,
    read_annotations,
    split_name,
)
from auravae_cli.store.ledger import Failure

_META = re.compile(r"__[^/]*__($|/)")  # in names that webdataset skips
_WAITING_BYTES = 64 << 20  # of companions that precede their pictures
_LATE_BYTES = 1 << 20  # of a companion that follows its picture


def is_meta(name: str) -> bool:
    """Return whether a member describes the tar, such as ``__meta__.json`` in a folder of such a name.

    >>> is_meta("__meta__"), is_meta("__index__/a.png"), is_meta("__a.png"), is_meta("a/__meta__")
    (True, True, False, False)
    """
    return _META.match(name) is not None


@dataclass
class TarSamples:
    """Takes members one by one. ``late`` has the annotations, by key, that follow their picture."""

    late: dict[str, dict[str, Any]] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)  # suffixes of pictures
    picture: str | None = None  # that counts, of several: see `make_samples`
    _key: str | None = None
    _members: list[Member] = field(default_factory=list)
    _size: int = 0
    _given: dict[str, set[str]] = field(default_factory=dict)  # key => suffixes that it had
    _early: dict[str, list[Member]] = field(default_factory=dict)
    _early_size: int = 0
    _spellings: dict[str, str] = field(default_factory=dict)  # one of each key

    def add(self, name: str, content: Content) -> Iterator[Sample | Failure]:
        """Add a member; yield the samples that are complete by now."""
        key, suffix = split_name(name)
        if not key.isascii():  # a caption may have been named on another system
            key = self._spellings.setdefault(unicodedata.normalize("NFC", key), key)
        if key != self._key:
            yield from self.finish()
            self._key, self._size = key, 0
        self._size += len(content)  # of all members of one key, which are held together
        self._members.append((suffix, FILE_BYTES.excess(self._size) or content))

    def finish(self) -> Iterator[Sample | Failure]:
        """Yield the sample in progress."""
        key, members = self._key, self._members
        self._key, self._members = None, []
        if key is None:
            return
        if has_picture(members):
            members = self._early.pop(key, []) + members
            self._given.setdefault(key, {suffix.lower() for suffix, _ in members})
            yield from make_samples(key, members, self.passed_over, self.picture)
        elif key in self._given:
            yield from self._send_after(key, members)
        else:
            yield from self._keep(key, members)

    def _keep(self, key: str, members: list[Member]) -> Iterator[Failure]:
        self._early_size += sum(len(content) for _, content in members)
        if self._early_size > _WAITING_BYTES:
            yield Failure(key, "read", f"{key}{members[0][0]}: too far before its picture")
        else:
            self._early.setdefault(key, []).extend(members)

    def _send_after(self, key: str, members: list[Member]) -> Iterator[Failure]:
        for suffix, content in members:
            name = key + suffix
            if suffix.lower() in self._given[key]:
                yield Failure(key, "read", f"{name}: occurs twice")
            elif len(content) > _LATE_BYTES:
                yield Failure(key, "read", f"{name}: too long to be apart from its picture")
            else:
                self._given[key].add(suffix.lower())
                found, failures = read_annotations(key, [(suffix, content)])
                self.late.setdefault(key, {}).update(found)
                yield from failures
