"""Detect what the terminal can draw, by its environment or by its answer."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auravae_cli.cli.terminal.protocol import Protocol

ANSWER_SECONDS = 0.5  # terminals answer at once, but this one may be far away
_CELL = (20, 10)  # pixels of a character, if the terminal does not report it
_KITTY = frozenset(("xterm-kitty", "xterm-ghostty"))
_TRUE_COLOUR = frozenset(("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper"))


@dataclass(frozen=True)
class Screen:
    """Where pictures are drawn: ``lines`` is None if nothing limits them (a pipe).

    ``cell`` is the (height, width) of a character in pixels.
    """

    protocol: Protocol
    columns: int
    lines: int | None
    cell: tuple[int, int] = _CELL


def find_screen(protocol: Protocol, width: int | None) -> Screen:
    """Return the screen of standard output; ``auto`` detects what it can draw."""
    watched = sys.stdout.isatty()
    if protocol is Protocol.auto:
        encoding = (sys.stdout.encoding or "").lower()
        protocol = best_protocol(os.environ, watched, encoding, draws_sixels)
    size = shutil.get_terminal_size()
    lines = size.lines - 2 if watched and width is None else None
    return Screen(protocol, width or size.columns, lines, _cell_size() if watched else _CELL)


def best_protocol(
    environment: Mapping[str, str],
    watched: bool,
    encoding: str,
    ask: Callable[[], bool],
) -> Protocol:
    """Return the best safe protocol. ``ask`` asks the terminal whether it draws sixels."""
    term = environment.get("TERM", "")
    if not watched or environment.get("NO_COLOR") or term == "dumb":
        return Protocol.ascii
    nested = "TMUX" in environment or "STY" in environment
    if not nested and (term in _KITTY or "KITTY_WINDOW_ID" in environment):
        return Protocol.kitty
    if ask():
        return Protocol.sixel
    if not encoding.startswith("utf"):
        return Protocol.ascii
    program = environment.get("TERM_PROGRAM")
    named = environment.get("COLORTERM") in ("truecolor", "24bit") or program in _TRUE_COLOUR
    if named or term.endswith("-direct") or "WT_SESSION" in environment:
        return Protocol.blocks
    return Protocol.blocks256 if "256color" in term else Protocol.ascii


def draws_sixels() -> bool:
    """Ask the terminal for its attributes (DA1), of which 4 means sixels. False if it does not answer."""
    try:
        import select
        import termios
        import tty

        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except (ImportError, OSError):
        return False
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return False  # in the background, asking would stop the program
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal)
            os.write(terminal, b"\x1b[c")
            answer = b""
            while not answer.endswith(b"c") and len(answer) < 100:
                if not select.select([terminal], [], [], ANSWER_SECONDS)[0]:
                    break
                answer += os.read(terminal, 1)
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)
    attributes = answer.partition(b"\x1b[?")[2].removesuffix(b"c").split(b";")
    return answer.endswith(b"c") and b"4" in attributes[1:]


def _cell_size() -> tuple[int, int]:
    """Return the pixels of a character, if the terminal reports them."""
    try:
        import fcntl
        import struct
        import termios

        found = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    except (ImportError, OSError):
        return _CELL
    lines, columns, width, height = struct.unpack("HHHH", found)
    if not (lines and columns and width and height):
        return _CELL
    return height // lines, width // columns
