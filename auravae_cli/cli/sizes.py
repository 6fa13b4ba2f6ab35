"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

import typer

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def read_size(text: str | None, option: str) -> int | None:
    """``4G``, ``500M``, ``1.5GiB`` as bytes; typer.BadParameter where it is malformed."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r}: expected a size such as 4G or 500M", param_hint=option)
    return int(size)
