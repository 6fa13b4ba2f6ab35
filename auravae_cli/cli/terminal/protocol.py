"""The ways to draw in a terminal."""

from __future__ import annotations

from enum import Enum


class Protocol(str, Enum):
    """How pictures are drawn; all but kitty and sixel are characters."""

    auto = "auto"
    kitty = "kitty"
    sixel = "sixel"
    blocks = "blocks"
    blocks256 = "blocks256"
    ascii = "ascii"
