"""The user's cache: data that can be lost, such as compiled kernels and measured speeds."""

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
    """Return the cache folder, which nobody else can write to; None if there is none, or none to trust.

    ``make`` creates a missing folder. If others could write to it, a notice says so, once.
    """
    path = cache_path()
    if path is None:
        return None
    try:
        return private_folder(path, make)
    except InsecureError as error:
        _tell(f"{path} is not used: {error}; set XDG_CACHE_HOME to a folder of your own")
    except OSError:  # missing, not writable, or not a folder
        pass
    return None


@cache
def passing_folder() -> Path:
    """Return a private folder that is removed with this process. Raises OSError if there can be none."""
    folder = tempfile.mkdtemp(prefix="auravae-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return private_folder(Path(folder))


def cache_path() -> Path | None:
    """Return where the cache is by the system's conventions; None without a home. It need not exist."""
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"], "auravae")
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "auravae")
    except RuntimeError:  # no HOME, and a user without an account, as in containers
        return None


@cache
def _tell(text: str) -> None:
    """Print to stderr, unless the program that uses the library configured logging otherwise."""
    import logging

    logging.getLogger("auravae").warning(text)
