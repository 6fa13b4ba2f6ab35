"""Format facts for people."""

from __future__ import annotations

from typing import Any


def show_fact(name: str, value: Any) -> str:
    """Format a fact; sizes of pictures are shown as width x height, not [height, width]."""
    if name in ("image_size", "source_size") and value:
        return f"{show(value[::-1])} pixels"
    return show(value)


def show(value: Any) -> str:
    """Format a value."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {show(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " ".join(map(show, value)) if len(value) > 4 else " x ".join(map(show, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "unknown" if value is None else str(value)


def number_or_dash(value: float | None, form: str) -> str:
    """Format a number of a table, without a sign if it is zero; a dash if it was not measured."""
    if value is None:
        return "-"
    text = form.format(value)
    return text.removeprefix("-") if not float(text) else text


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``1 shard``, ``2 shards``."""
    return f"{number} {what}{'s' * (number != 1)}"
