"""The libraries of C files: what the wheel brought, or built by the machine's compiler at first use and kept
in the cache.

::

    the package, the cache or a folder of this process --> NAME-KEY-SHA256.so --load--> library
                             ^ built if it is missing, damaged or not ours

KEY depends on what it was built from and for; SHA256 is the hash of its content. A library that is
empty, truncated, or has pages of zeros would crash the process when it is loaded, or do nothing.
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
from auravae_cli.model.cpu.shipped import LEVELS, SOURCES, place, shipped, stem

_FLAGS = ("-O3", "-shared", "-fPIC", "-ffp-contract=fast")
_TUNED = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler supports
_SECONDS = 60  # for the compiler
_PREFIX = ".native-"  # of folders for building
_ABANDONED = 3600  # seconds after which nobody is still building there


def library(source: Path, *flags: str) -> ctypes.CDLL:
    """Return the library compiled from ``source``: the one of the package, unless ``CC`` names a compiler; or
    from the user's cache; if that cannot be used, built for this process only. ``flags`` are the compiler's,
    beside those for this processor.

    Raises OSError, SubprocessError or OutputError if it cannot be built or loaded.
    """
    ready = None if flags or os.environ.get("CC") else shipped(source)
    if ready is not None:
        with suppress(OSError):  # of a C library that this system has not
            return ctypes.CDLL(str(ready))
    compiler = [*(shlex.split(os.environ.get("CC", "")) or [_compiler()]), *flags]
    key = repr((source.read_bytes(), compiler, _FLAGS, _processor()))
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    kept = cache_folder(make=True)
    if kept is not None:
        with suppress(OSError, OutputError):  # cannot be read, written or run, or is full
            return ctypes.CDLL(str(_kept(kept, name) or _build(compiler, source, kept, name)))
    return ctypes.CDLL(str(_build(compiler, source, passing_folder(), name)))


def _kept(folder: Path, name: str) -> Path | None:
    """Return what an earlier run has built, if it is intact; otherwise remove it."""
    for path in sorted(folder.glob(f"{name}*.so")):
        try:
            if path == place(folder, name, read_private(path)):
                return path
        except OSError:  # not ours, or not a regular file
            pass
        with suppress(OSError):
            path.unlink()
    return None


def build_all(folder: Path) -> dict[str, list[Path]]:
    """Build the kernels of all levels of this machine's architecture, as a wheel brings them.

    Returns the libraries of each level; empty for a level that the compiler does not know. Raises
    FileNotFoundError if there is no compiler.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or [_compiler()]
    built: dict[str, list[Path]] = {}
    for level, (_, tuned) in LEVELS.get(platform.machine(), {}).items():
        with suppress(subprocess.SubprocessError):
            built[level] = [
                _build(compiler, source, folder, stem(source, level), (tuned,))
                for source in SOURCES
            ]
    return built


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        raise FileNotFoundError("no C compiler")
    return found


def _processor() -> str:
    """Return what a compiler's instructions depend on; machines can share a home."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})
    except (OSError, UnicodeDecodeError):
        features = [platform.processor()]
    return repr((platform.system(), platform.machine(), features))


def _build(
    compiler: list[str],
    source: Path,
    folder: Path,
    name: str,
    tunings: tuple[tuple[str, ...], ...] | None = None,
) -> Path:
    """Compile in a private folder; the library appears there complete, and is on the disk."""
    for left in _abandoned(folder):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_PREFIX) as inner:
        result = Path(inner, "native.so")
        for tuned in tunings or _TUNED:
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
                path = place(folder, name, content)
                write_private(path, content)
                return path
    raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)


def _abandoned(folder: Path) -> Iterator[Path]:
    """Yield folders of builds that were killed."""
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _ABANDONED:
                yield left
