"""The ways to draw in a terminal."""

from __future__ import annotations

from enum import Enum


class Protocol(str, Enum):
    """How to draw pictures; all but kitty and sixel use characters."""

    auto = "auto"
    kitty = "kitty"
    sixel = "sixel"
    blocks = "blocks"
    blocks256 = "blocks256"
    ascii = "ascii"
