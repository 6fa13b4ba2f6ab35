"""Standard streams that are closed, as under some schedulers, and names that the shell got wrong."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import typer

from auravae_cli.files.places import local_name


def replace_closed() -> None:
    """Put something into the place of closed standard streams.

    Otherwise the next file that is opened would be one of them. Reading and writing data fails; what is
    printed for people goes nowhere.
    """
    for number, way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.dup2(os.open(os.devnull, way), number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def take_names(ctx: typer.Context, arguments: list[str]) -> list[str]:
    """Return a command's arguments with paths in place of ``file://`` URLs.

    Raises typer.BadParameter if one is empty: the name of no file, although Python takes it for the current
    folder's.
    """
    taken, option = list[str](), ""
    for argument in arguments:
        name, equals, value = (
            argument.partition("=") if argument.startswith("--") else ("", "", argument)
        )
        if not value and (equals or not name):
            hint = name or option or None
            raise typer.BadParameter(
                "an empty name: is a variable in the command not set?", ctx=ctx, param_hint=hint
            )
        taken.append(f"{name}{equals}{local_name(value)}")
        option = argument if argument.startswith("-") and not equals else ""
    return taken
