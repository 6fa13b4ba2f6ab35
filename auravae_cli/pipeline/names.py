"""Names of results: safe below an output folder, and each given once."""

from __future__ import annotations

import hashlib


class Names:
    """The names that a run has given. Costs about 100 bytes a name, however long."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self, name: str) -> bool:
        """Whether the name is new; it is taken from now on."""
        digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        if number in self._taken:
            return False
        self._taken.add(number)
        return True


def safe_name(name: str) -> str:
    """A relative path, whatever the name was.

    >>> safe_name("/../a/./b.c"), safe_name("..")
    ('a/b.c', 'latent')
    """
    parts = (part for part in name.split("/") if part not in ("", ".", ".."))
    return "/".join(parts).replace("\0", "_") or "latent"
