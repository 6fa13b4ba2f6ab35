"""A file of C as a library: built by the machine's own compiler at first use, and kept in the cache.

::

    cache or a folder of this process --> NAME-KEY-SHA256.so --load--> library
                                              ^ built where it is missing, damaged or not ours

KEY is what it was built from and for, SHA256 is of its content: one that is empty or cut off, or has
pages of zeros, would end the process when it is loaded, or do nothing for good.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from auravae_cli.errors import OutputError
from auravae_cli.files.cache import cache_folder, passing_folder
from auravae_cli.files.private import read_private, write_private

_FLAGS = ("-O3", "-shared", "-fPIC", "-ffp-contract=fast")
_TUNED = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler knows
_SECONDS = 60  # for the compiler
_PREFIX = ".native-"  # of folders that are built in
_ABANDONED = 3600  # seconds after which nobody builds there any more


def library(source: Path, *flags: str) -> ctypes.CDLL:
    """What ``source`` is compiled to, from the user's cache; where that cannot be used, built for
    this process alone. ``flags`` are the compiler's, beside those for this processor.

    Raises OSError, SubprocessError or OutputError where it cannot be built or loaded.
    """
    compiler = [*(shlex.split(os.environ.get("CC", "")) or [_compiler()]), *flags]
    key = repr((source.read_bytes(), compiler, _FLAGS, _processor()))
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    kept = cache_folder(make=True)
    if kept is not None:
        with suppress(OSError, OutputError):  # not to be read, written or run, or full
            return ctypes.CDLL(str(_kept(kept, name) or _build(compiler, source, kept, name)))
    return ctypes.CDLL(str(_build(compiler, source, passing_folder(), name)))


def _kept(folder: Path, name: str) -> Path | None:
    """What an earlier run has built, if it is whole; what is not is removed."""
    for path in sorted(folder.glob(f"{name}*.so")):
        try:
            if path == _place(folder, name, read_private(path)):
                return path
        except OSError:  # not ours, or no regular file
            pass
        with suppress(OSError):
            path.unlink()
    return None


def _place(folder: Path, name: str, content: bytes) -> Path:
    return folder / f"{name}-{hashlib.sha256(content).hexdigest()}.so"


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        raise FileNotFoundError("no C compiler")
    return found


def _processor() -> str:
    """What the instructions that a compiler may use depend on; a home may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})
    except (OSError, UnicodeDecodeError):
        features = [platform.processor()]
    return repr((platform.system(), platform.machine(), features))


def _build(compiler: list[str], source: Path, folder: Path, name: str) -> Path:
    """Compile into a private folder; the library appears there as a whole, and is on the disk."""
    for left in _abandoned(folder):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_PREFIX) as inner:
        result = Path(inner, "native.so")
        for tuned in _TUNED:
            command = [*compiler, *_FLAGS, *tuned, "-o", str(result), str(source), "-lm"]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
            if done.returncode == 0:
                content = result.read_bytes()
                path = _place(folder, name, content)
                write_private(path, content)
                return path
    raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)


def _abandoned(folder: Path) -> Iterator[Path]:
    """Folders of builds that were killed."""
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _ABANDONED:
                yield left
