"""What the C library does with the memory of large arrays that are freed: keep it, or return it to the system.

glibc keeps freed blocks of up to 32 MiB, and cannot return any below a block that is in use. Other C
libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in bytes
_DEFAULT, _OWN_MAPPING, _NEVER = 128 << 10, 1 << 20, 1 << 30


def return_what_is_freed() -> bool:
    """Return blocks of a megabyte and more to the system when they are freed; return whether that is so now.

    By default, up to half as much again as is used stays taken. This costs some time, so it is done only
    if memory is short.
    """
    library = _glibc()
    return library is not None and bool(library.mallopt(_MMAP_THRESHOLD, _OWN_MAPPING))


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep all freed memory while the block runs, and return it afterwards.

    By default, every array above some megabytes is made of new pages, and each page is zeroed and mapped
    when it is first written: 66,000 a step, 6 % of the training of `small`.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    library.mallopt(_MMAP_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, _DEFAULT)
        library.mallopt(_MMAP_THRESHOLD, _DEFAULT)
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        _ = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return library
