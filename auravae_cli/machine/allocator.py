"""Keep the memory that large arrays free, where the C library would return it to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, malloc.h of glibc
_DEFAULT, _NEVER = 128 << 10, 1 << 30


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory in the process while the block runs, and return it afterwards; only with glibc.

    Otherwise every array above some megabytes is made of new pages, and each page is zeroed and mapped
    when it is first written: 66,000 a step, 6 % of the training of `small`.
    """
    try:
        library = ctypes.CDLL(None)
        set_option, trim = library.mallopt, library.malloc_trim
    except (OSError, TypeError, AttributeError):  # another C library, or Windows
        yield
        return
    set_option(_TRIM_THRESHOLD, _NEVER)
    set_option(_MMAP_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        set_option(_TRIM_THRESHOLD, _DEFAULT)
        set_option(_MMAP_THRESHOLD, _DEFAULT)
        trim(0)
