"""How much memory a process may still take, so that a picture can be refused before it is tried.

Without this the kernel would kill the process in the middle of a batch, and say nothing.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

# What a picture takes, at the most: uint8 as Pillow has it, as read and as framed, float32 as padded.
BYTES_PER_PIXEL = 20
_WORTH_A_LOOK = 16 << 20  # bytes from which it is asked how many are free

_M_MMAP_THRESHOLD = -3  # of mallopt
_OWN_MAPPING = 1 << 20  # bytes from which a block is given back as soon as it is freed

_LARGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14  # of madvise

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes to be had without swapping, by the machine and the container; None where unknown.

    Linux tells; elsewhere nothing is known.
    """
    found = [size for size in (_machine(), _container()) if size is not None]
    return min(found, default=None)


def shortage(height: int, width: int) -> str:
    """Why a picture of so many pixels is not tried; empty where the memory holds it, as far as is known."""
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
    """What control groups (version 2) leave; their ``max`` is no number where they set no limit."""
    try:
        limit, used = (int((_CGROUP / f"memory.{k}").read_text()) for k in ("max", "current"))
    except (OSError, ValueError):
        return None
    return min(limit, max(0, limit - used + _cached_files()))


def _cached_files() -> int:
    """Bytes of files read before: they count as used, and the kernel drops them when asked for more."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("inactive_file "))
        return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return 0


@cache
def return_what_is_freed() -> bool:
    """Have blocks of a megabyte and more given back as they are freed; whether that is so now.

    By itself glibc keeps freed blocks of up to 32 MiB for later, and can give back none of them below
    one that is in use: up to half as much again as is used. It costs some time, so it is done only
    where memory is short.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING))
    except (OSError, AttributeError):  # another libc
        return False


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
