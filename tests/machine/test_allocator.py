"""Freed memory stays in the process while it is asked for, and returns afterwards."""

import platform
import resource
from pathlib import Path

import pytest

from auravae_cli.machine.allocator import kept_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")

BYTES = 48 << 20


def resident():
    """The bytes that the process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture
def before():
    """What is held before, without anything that was freed already."""
    with kept_memory():
        pass
    return resident()


def make_and_free():
    bytearray(BYTES)  # zeroed, so every page is written


def test_freed_memory_is_kept_and_returned_afterwards(before):
    with kept_memory():
        make_and_free()
        assert resident() - before > BYTES / 2
    assert resident() - before < BYTES / 4


def test_it_is_returned_after_an_error_too(before):
    with pytest.raises(ZeroDivisionError), kept_memory():
        make_and_free()
        _ = 1 / 0
    assert resident() - before < BYTES / 4
