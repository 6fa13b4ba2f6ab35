"""How much memory a process can still take, so that a picture can be refused beforehand.

Otherwise the kernel would kill the process in the middle of a batch, without a message.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

# Memory per pixel, at most: uint8 in Pillow, as read and as framed; float32 as padded.
BYTES_PER_PIXEL = 20
_WORTH_A_LOOK = 16 << 20  # bytes from which free memory is checked

_LARGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14  # of madvise

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Return the bytes available without swapping, in the machine and the container; None if unknown.

    Only Linux reports it.
    """
    found = [size for size in (_machine(), _container()) if size is not None]
    return min(found, default=None)


def shortage(height: int, width: int) -> str:
    """Return why a picture of this size is not tried; empty if it fits into memory, as far as is known."""
    needed = height * width * BYTES_PER_PIXEL
    free = free_memory() if needed > _WORTH_A_LOOK else None
    if free is None or needed <= free:
        return ""
    return (
        f"{width} x {height} pixels take up to {needed >> 20} MB, and {free >> 20} MB are free: make it "
        "smaller, or free some memory"
    )


def _machine() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None


def _container() -> int | None:
    """Return what control groups (version 2) leave; ``max`` is not a number if they set no limit."""
    try:
        limit, used = (int((_CGROUP / f"memory.{k}").read_text()) for k in ("max", "current"))
    except (OSError, ValueError):
        return None
    return min(limit, max(0, limit - used + _cached_files()))


def _cached_files() -> int:
    """Return the bytes of cached files: they count as used, but the kernel drops them on demand."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("inactive_file "))
        return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def in_large_pages(address: int, size: int) -> None:
    """Ask Linux for pages of 2 MiB in memory not touched yet: 512 first touches fewer in each.

    A wish: where it is not to be had nothing happens.
    """
    first, end = -(-address // _LARGE_PAGE) * _LARGE_PAGE, (address + size) & -_LARGE_PAGE
    advise = _advise()
    if advise is not None and first < end:
        advise(first, end - first, _MADV_HUGEPAGE)


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return cast("Callable[[int, int, int], int]", found)
