"""Numbers of options: sizes in bytes, and what is accepted in place of a number that cannot be read."""

from __future__ import annotations

import re
from typing import Any

import typer

from auravae_cli.files.limits import parse_size

# Words of typer, in its versions, for what is no number, or out of range.
_BAD_NUMBER = re.compile(r"Input should be|is not a valid (int|float)|is not in the range")
_EXAMPLES = {"resize": 512, "batch_size": 8, "shard_size": 1000, "width": 80, "noise": 0.1}


def explained(message: str, parameter: Any) -> str:
    """Return a usage error's message for people; ``parameter`` is typer's, or None."""
    if parameter is None or not _BAD_NUMBER.search(message):
        return message.removeprefix("Value error, ")
    kind = getattr(parameter, "type", None)
    least, most = (getattr(parameter, end, getattr(kind, end, None)) for end in ("min", "max"))
    default = parameter.default if isinstance(parameter.default, int | float) else None
    is_whole = not any(isinstance(number, float) for number in (least, most, default))
    noun = "a whole number" if is_whole else "a number"
    if least is not None:
        noun += (
            f" of at least {_plain(least)}"
            if most is None
            else f" from {_plain(least)} to {_plain(most)}"
        )
    example = _EXAMPLES.get(parameter.name, default if default is not None else least or 1)
    return f"expected {noun}, such as {example}"


def parse_bytes(text: str | None, option: str) -> int | None:
    """Parse ``4G``, ``500M``, ``1.5GiB`` to bytes. Raises typer.BadParameter if it is malformed."""
    size = None if text is None else parse_size(text)
    if text is not None and size is None:
        raise typer.BadParameter(f"{text!r}: expected a size such as 4G or 500M", param_hint=option)
    return size


def _plain(number: float) -> float:
    """Return a number without a needless point: 0 for 0.0."""
    return int(number) if number == int(number) else number
