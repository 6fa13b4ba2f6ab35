"""The user's cache: what may be forgotten, such as compiled kernels and measured speeds."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from auravae_cli.files.private import InsecureError, private_folder


def cache_folder(make: bool = False) -> Path | None:
    """The folder, which nobody else can write to; None where there is none, or none to be trusted.

    ``make`` makes it where it is missing. Of one that others could write to it is said so, once.
    """
    path = cache_path()
    if path is None:
        return None
    try:
        return private_folder(path, make)
    except InsecureError as error:
        _tell(f"{path} is not used: {error}; set XDG_CACHE_HOME to a folder of your own")
    except OSError:  # missing, not to be written, or no folder at all
        pass
    return None


@cache
def passing_folder() -> Path:
    """A folder that is private, too, and goes with this process. OSError where there can be none."""
    folder = tempfile.mkdtemp(prefix="auravae-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return private_folder(Path(folder))


def cache_path() -> Path | None:
    """Where it is, as the system's users expect it; None without a home. It need not exist."""
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"], "auravae")
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "auravae")
    except RuntimeError:  # no HOME, and a user whom the system does not know: as in containers
        return None


@cache
def _tell(text: str) -> None:
    """On stderr, unless the program that uses the library has other plans for what is logged."""
    import logging

    logging.getLogger("auravae").warning(text)
