"""Texts that occur more than once among very many: 16 bytes are remembered of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np


class DuplicateFinder:
    """Texts in the order in which they are added; None repeats nothing."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def add(self, texts: Iterable[str | None]) -> None:
        """Remember some more texts."""
        for text in texts:
            if text is None:  # the digest of its place, which is that of no text
                self._digests += (len(self._digests) // 16).to_bytes(16, "little")
            else:
                data = text.encode(errors="surrogatepass")
                self._digests += hashlib.blake2b(data, digest_size=16).digest()

    def groups(self) -> Iterator[list[int]]:
        """The places of each text that occurs more than once, by the first of them."""
        words = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable: places ascend within a text
        same = (words[order[1:]] == words[order[:-1]]).all(axis=1)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        starts, stops = edges[::2], edges[1::2]
        for run in np.argsort(order[starts], kind="stable"):
            yield order[starts[run] : stops[run] + 1].tolist()
