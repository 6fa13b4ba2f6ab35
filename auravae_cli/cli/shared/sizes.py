"""Parse sizes in bytes."""

from __future__ import annotations

import typer

from auravae_cli.files.limits import parse_size


def read_size(text: str | None, option: str) -> int | None:
    """Parse ``4G``, ``500M``, ``1.5GiB`` to bytes. Raises typer.BadParameter if it is malformed."""
    size = None if text is None else parse_size(text)
    if text is not None and size is None:
        raise typer.BadParameter(f"{text!r}: expected a size such as 4G or 500M", param_hint=option)
    return size
