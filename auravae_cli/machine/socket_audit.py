"""Record what Python opens towards a network while something runs, to show that nothing is sent.

An audit hook (PEP 578) sees every socket that Python code makes or connects, in any library. It does
not see what compiled code opens by itself, without Python.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EVENTS = frozenset(
    f"socket.{name}" for name in ("__new__", "connect", "getaddrinfo", "sendto", "sendmsg", "bind")
)
_watchers: list[list[str]] = []
_is_installed = False


@contextmanager
def watch_sockets(opened: list[str]) -> Iterator[None]:
    """Append every attempt to reach a network during the block to ``opened``."""
    global _is_installed  # noqa: PLW0603 - a hook cannot be taken away, so there is one for all
    if not _is_installed:
        sys.addaudithook(_note)
        _is_installed = True
    _watchers.append(opened)
    try:
        yield
    finally:
        _watchers.remove(opened)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watchers and event in EVENTS:
        text = f"{event} {arguments[1:]!r}"
        for opened in _watchers:
            opened.append(text)
