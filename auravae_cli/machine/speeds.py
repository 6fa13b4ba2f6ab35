"""Speeds of earlier runs on this machine, kept in the user's cache, and predictions from them.

A speed belongs to a processor (or a GPU), its threads, torch's version, a model, a number format, an
engine, and a command. Predicted seconds are a plan's operations divided by the speed at the nearest number of
operations that was measured. The file can be removed at any time; if it cannot be written, nothing
is remembered.
"""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from auravae_cli.errors import OutputError
from auravae_cli.files.cache import cache_folder
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.files.private import read_private, write_private

SPEED_FILE = "speed.json"
OLD_SHARE = 0.5  # weight of a new measurement: one slow run is not a new machine
WORTH_WRITING = 0.05  # a smaller relative change is not written
_Rates = dict[str, dict[str, list[float]]]  # key => operations, by powers of two => [work, seconds]


@dataclass
class Speeds:
    """The known speeds, read on first use."""

    _known: _Rates | None = None
    _changed: _Rates = field(default_factory=dict)

    def seconds(self, key: str, work: float) -> float | None:
        """Return how long ``work`` operations take; None if nothing similar was measured."""
        rates = self._rates().get(key, {})
        if not rates or work <= 0:
            return None
        measured = sorted((abs(math.log(known / work)), known, s) for known, s in rates.values())
        _, known, seconds = measured[0]
        return seconds * work / known

    def record(self, key: str, work: float, seconds: float) -> None:
        """Record that ``work`` operations took ``seconds``."""
        if work <= 0 or seconds <= 0:
            return
        size = str(round(math.log2(work)))
        known = self._rates().setdefault(key, {}).get(size)
        rate = seconds / work
        if known is not None:
            old = known[1] / known[0]
            rate = math.exp(OLD_SHARE * math.log(old) + (1 - OLD_SHARE) * math.log(rate))
            if abs(rate / old - 1) < WORTH_WRITING:
                return
        entry = [work, rate * work]
        self._rates()[key][size] = entry
        self._changed.setdefault(key, {})[size] = entry

    def save(self) -> None:
        """Write new speeds, merged with what other runs wrote meanwhile."""
        folder = cache_folder(make=True) if self._changed else None
        if folder is None:
            return
        content = _read(folder)
        for key, rates in self._changed.items():
            content.setdefault(key, {}).update(rates)
        self._changed = {}
        with suppress(OSError, OutputError):  # a home that cannot be written is no reason to fail
            text = write_json(content, indent=1, sort_keys=True)
            write_private(folder / SPEED_FILE, text.encode())

    def _rates(self) -> _Rates:
        if self._known is None:
            self._known = _read(cache_folder())
        return self._known


def _read(folder: Path | None) -> _Rates:
    """Read the speeds in a cache; invalid entries, and a file of another user, are ignored."""
    if folder is None:
        return {}
    try:
        content: Any = read_json(read_private(folder / SPEED_FILE))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        key: {size: pair for size, pair in rates.items() if _is_pair(pair)}
        for key, rates in content.items()
        if isinstance(rates, dict)
    }


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(n) in (int, float) and 0 < n < math.inf for n in pair)
    )


def speed_key(command: str, weights_sha256: str, device: str, dtype: str, engine: str) -> str:
    """Return the key that identifies a speed."""
    how = f"{dtype}, {engine}"
    return " | ".join([command, weights_sha256[:12], how, device_name(device), torch_version()])


@cache
def device_name(device: str) -> str:
    """Return the GPU's name, or the processor's with its threads."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"{device}: {processor()}, {threads()} threads"


@cache
def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, UnicodeDecodeError):
        pass
    return platform.processor() or platform.machine()


def threads() -> int:
    """Return the number of threads of a network, as torch chooses it."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def torch_version() -> str:
    """Return the installed torch's version, without importing it."""
    try:
        return f"torch {metadata.version('torch')}"
    except metadata.PackageNotFoundError:
        return "no torch"
