"""Limits on a single input, so that one that claims too much fails alone and the run continues.

Every limit has an environment variable that the commands, their workers and the library follow:
``AURAVAE_MAX_FILE_BYTES=4G auravae encode photos/``. The pixels of a picture are limited by the
option ``--max-pixels`` instead. SECURITY.md says what is trusted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from auravae_cli.errors import AuraVaeError, ConfigError

PREFIX = "AURAVAE_MAX_"  # the prefix of all variables here
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Limit:
    """The largest amount that one input may have; ``unit`` is what is counted.

    ``ceiling`` is the largest value that the limit can be raised to.
    """

    name: str
    default: int
    unit: str
    ceiling: int = 1 << 60

    @cached_property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name

    @property
    def value(self) -> int:
        """The current limit. Raises ConfigError if the variable is malformed."""
        text = os.environ.get(self.variable)
        return self.default if text is None else _read(self, text)

    def excess(self, found: int) -> str:
        """Return why ``found`` is too much and how to raise the limit; empty if it is not."""
        if found <= self.value:
            return ""
        return (
            f"{found} {self.unit}: more than the limit of {self.value}; raise it with "
            f"{self.variable} if you trust the file"
        )

    def check(self, found: int, error: type[AuraVaeError]) -> None:
        """Raise ``error`` if ``found`` is too much."""
        if reason := self.excess(found):
            raise error(reason)


# A picture, a latent in a stream, a manifest, an unpacked array: whatever is held in memory as a whole.
FILE_BYTES = Limit("FILE_BYTES", 1 << 30, "bytes")
# A caption, a label or a table of metadata. The ceiling lets a shard's header hold one, even though
# texts are escaped twice there.
TEXT_BYTES = Limit("TEXT_BYTES", 8 << 20, "bytes of text", 12 << 20)
TAR_HEADER_BYTES = Limit("TAR_HEADER_BYTES", 256 << 10, "bytes of a tar's header")
JSON_DEPTH = Limit("JSON_DEPTH", 100, "levels of JSON", 400)  # Python reads and writes about 900
FOLDER_DEPTH = Limit("FOLDER_DEPTH", 100, "folders, each in the other", 400)
CHANNELS = Limit("CHANNELS", 4096, "channels")
LIMITS = (FILE_BYTES, TEXT_BYTES, TAR_HEADER_BYTES, JSON_DEPTH, FOLDER_DEPTH, CHANNELS)


def check_environment() -> None:
    """Raise ConfigError if a variable is malformed or unknown, since a typo would go unnoticed."""
    known = {limit.variable: limit for limit in LIMITS}
    for variable in os.environ:
        if variable.startswith(PREFIX):
            if variable not in known:
                raise ConfigError(f"{variable}: no such limit; there are {', '.join(known)}")
            _ = known[variable].value


def parse_size(text: str) -> int | None:
    """Parse ``4G``, ``500M``, ``1.5GiB``, ``1000``; None if it is malformed or below 1."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match and len(text) < 40 else 0
    return size if size >= 1 else None


@lru_cache(32)
def _read(limit: Limit, text: str) -> int:
    size = parse_size(text)
    if size is None or size > limit.ceiling:
        raise ConfigError(
            f"{limit.variable} is {text[:40]!r}: expected a number from 1 to {limit.ceiling}, "
            "such as 1000 or 4G"
        )
    return size
