"""The readers of the extra ``pictures``, which are heavy, and not always there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from auravae_cli.errors import InputImageError

INSTALL = 'pip install "auravae[pictures]"'


def imagecodecs() -> Any:
    """The module, or None where it is not installed."""
    try:
        return import_module("imagecodecs")
    except ImportError:
        return None


def required(module: str, what: str) -> Any:
    """A module of the extra; InputImageError, with what has to be installed, where it is missing."""
    try:
        return import_module(module)
    except ImportError:
        raise InputImageError(f"{what}: to read it, {INSTALL}") from None
