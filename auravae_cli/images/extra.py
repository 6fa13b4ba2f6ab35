"""The readers of the extra ``pictures``, which are large and optional."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from auravae_cli.errors import InputImageError

INSTALL = "pip install imagecodecs pillow-heif"


def imagecodecs() -> Any:
    """Return the module, or None if it is not installed."""
    try:
        return import_module("imagecodecs")
    except ImportError:
        return None


def required(module: str, what: str) -> Any:
    """Return a module of the extra. Raises InputImageError, with how to install it, if it is missing."""
    try:
        return import_module(module)
    except ImportError:
        raise InputImageError(f"{what}: to read it, {INSTALL}") from None
