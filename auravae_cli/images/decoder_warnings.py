"""Warnings of the libraries that decode pictures, each heard by the thread whose picture caused it.

Python's `warnings.catch_warnings` sets globals. Where threads overlap in it, one hears what another one's
picture caused, and the last one may leave the process without warnings.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SOURCES = r"(PIL|tifffile|imagecodecs|pillow_heif|numpy|auravae_cli\.images)\b"
_here = threading.local()  # its ``heard``: the messages in the innermost block of this thread


class _Switch:
    """Route warnings to the threads that listen: the first one turns it on, the last one off."""

    def __init__(self) -> None:
        self._lock, self._listening = threading.Lock(), 0
        self._before: warnings.catch_warnings[None]
        self._show: Callable[..., None]

    def __enter__(self) -> None:
        with self._lock:
            if not self._listening:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                self._show, warnings.showwarning = warnings.showwarning, self._route
                warnings.filterwarnings("always", module=_SOURCES)
            self._listening += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._listening -= 1
            if not self._listening:
                self._before.__exit__(None, None, None)

    def _route(self, message: Warning | str, *arguments: Any, **options: Any) -> None:
        heard: list[str] | None = getattr(_here, "heard", None)
        if heard is None:
            self._show(message, *arguments, **options)
        else:
            heard.append(str(message))


_switch = _Switch()


@contextmanager
def decoder_warnings() -> Iterator[list[str]]:
    """Yield a list, to which each warning in the block is added instead of being shown."""
    outer = getattr(_here, "heard", None)
    heard: list[str] = []
    _here.heard = heard
    try:
        with _switch:
            yield heard
    finally:
        _here.heard = outer
