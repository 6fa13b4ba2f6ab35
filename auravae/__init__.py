"""The package by the name of its program: ``import auravae`` gives what ``import auravae_cli`` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import auravae_cli
from auravae_cli import __all__ as __all__

if TYPE_CHECKING:
    from auravae_cli import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(auravae_cli, name)
    raise AttributeError(f"module 'auravae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
