"""Find texts that occur more than once among very many, with 16 bytes of memory for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np


class DuplicateFinder:
    """Texts in the order in which they are added; None equals nothing."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def add(self, texts: Iterable[str | None]) -> None:
        """Add some texts."""
        for text in texts:
            if text is None:  # use the digest of its place, which no text has
                self._digests += (len(self._digests) // 16).to_bytes(16, "little")
            else:
                data = text.encode(errors="surrogatepass")
                self._digests += hashlib.blake2b(data, digest_size=16).digest()

    def groups(self) -> Iterator[list[int]]:
        """Yield the places of each text that occurs more than once, ordered by the first."""
        words = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable: places ascend within a text
        same = (words[order[1:]] == words[order[:-1]]).all(axis=1)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        starts, stops = edges[::2], edges[1::2]
        for run in np.argsort(order[starts], kind="stable"):
            yield order[starts[run] : stops[run] + 1].tolist()
