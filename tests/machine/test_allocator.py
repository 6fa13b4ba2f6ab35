"""Freed memory stays in the process while it is asked for, and returns afterwards."""

import platform
import resource

import pytest

from auravae_cli.machine.allocator import kept_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")

BYTES = 24 << 20
PAGES = BYTES // resource.getpagesize()


def pages_taken(times):
    """How many new pages it takes to make an array, and free it, some times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(BYTES)  # zeroed, so every page is written
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_large_arrays_use_the_same_pages_again():
    with kept_memory():
        pages_taken(8)  # until a free piece is large enough
        assert pages_taken(4) < PAGES / 4


def test_memory_is_returned_afterwards():
    with kept_memory():
        pages_taken(8)
    assert pages_taken(1) > PAGES / 4


def test_it_is_returned_after_an_error_too():
    with pytest.raises(ZeroDivisionError), kept_memory():
        pages_taken(8)
        _ = 1 / 0
    assert pages_taken(1) > PAGES / 4
