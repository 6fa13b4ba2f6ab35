"""The only way to the terminal: lines in which foreign text is inert.

Names, records and reasons come from foreign files. An escape sequence in one could clear the screen,
forge lines or type commands; a line break could forge a result. Here they are shown as ``\\x1b`` and
``\\n``, and never interpreted as markup. Our own drawings (`print_drawing`) are the exception.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

from auravae_cli.files.canonical_json import write_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

# Control characters, line separators, and characters that reverse the text around them.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_REVERSERS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_INERT = {code: ascii(chr(code))[1:-1] for code in (*_CONTROLS, *_REVERSERS)}


def inert(text: object) -> str:
    r"""Return the text as one line that a terminal only displays.

    >>> inert("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return str(text).translate(_INERT)


def say(*lines: str) -> None:
    """Print lines for people on stderr."""
    _write(sys.stderr, lines, flush=True)


def tell(*lines: str, on_stderr: bool = False, flush: bool = False) -> None:
    """Print lines of a result on stdout, or on stderr if stdout carries a latent or a picture."""
    _write(sys.stderr if on_stderr else sys.stdout, lines, flush)


def tell_json(content: Any, *, on_stderr: bool = False) -> None:
    """Print a result as a line of JSON, which needs no further escaping."""
    print(write_json(content), file=sys.stderr if on_stderr else sys.stdout, flush=True)


def print_drawing(drawing: str) -> None:
    """Print a picture in the terminal's own sequences on stdout."""
    sys.stdout.write(drawing)
    sys.stdout.flush()


def console(*, on_stderr: bool = False) -> Console:
    """Return rich's console, without markup or emoji names."""
    from rich.console import Console

    return Console(stderr=on_stderr, markup=False, emoji=False, highlight=False)


def progress(*columns: ProgressColumn | None, hidden: bool = False, **options: Any) -> Progress:
    """Return a bar on stderr; None among the ``columns`` stands for the description of its task.

    ``options`` are `rich.progress.Progress`'s.
    """
    from rich.progress import Progress, TextColumn

    description = TextColumn("{task.description}", markup=False)
    shown = [description if column is None else column for column in columns]
    return Progress(*shown, console=console(on_stderr=True), disable=hidden, **options)


def _write(stream: TextIO, lines: tuple[str, ...], flush: bool) -> None:
    print("\n".join(map(inert, lines)), file=stream, flush=flush)
