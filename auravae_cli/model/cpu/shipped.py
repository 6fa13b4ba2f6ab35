"""The kernels that a wheel brings, built for levels of processors when the wheel was built.

::

    processor --> its level --> kernels/NAME-LEVEL-KEY-SHA256.so, if only this user or the system can write it

A level stands for the instructions that the compiler may use. `compiled` builds for the very
processor, and stands in where the package was installed without kernels.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from auravae_cli.files.private import read_private, trusted_folder

FOLDER = Path(__file__).parent / "kernels"
SOURCES = tuple(
    Path(__file__).with_name(f"{name}.c") for name in ("native", "bfloat16", "attention")
)
_AVX2 = frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# machine => level => (flags of /proc/cpuinfo that it needs, flags of the compiler); best first
LEVELS: dict[str, dict[str, tuple[frozenset[str], tuple[str, ...]]]] = {
    "x86_64": {
        "bf16": (_AVX512 | {"avx512_bf16"}, ("-march=x86-64-v4", "-mavx512bf16")),
        "v4": (_AVX512, ("-march=x86-64-v4",)),
        "v3": (_AVX2, ("-march=x86-64-v3",)),
    },
    "aarch64": {"base": (frozenset(), ())},
    "arm64": {"base": (frozenset(), ())},  # the same, as macOS calls it
}


def shipped(source: Path) -> Path | None:
    """Return the intact library for this processor that was built from exactly this source, or None."""
    level = level_of(_features())
    if level is None or not FOLDER.is_dir():
        return None
    with suppress(OSError):  # others can write to it, or it cannot be read
        inside = trusted_folder(FOLDER)
        for path in inside.glob(f"{stem(source, level)}-*.so"):
            if path == place(inside, stem(source, level), read_private(path)):
                return path
    return None


def level_of(features: Iterable[str], machine: str | None = None) -> str | None:
    """Return the best level of a processor with these features, or None if it reaches none.

    >>> level_of(LEVELS["x86_64"]["v4"][0], "x86_64"), level_of((), "x86_64"), level_of((), "riscv64")
    ('v4', None, None)
    """
    levels = LEVELS.get(machine or platform.machine(), {})
    return next((level for level, (needed, _) in levels.items() if needed <= set(features)), None)


def stem(source: Path, level: str) -> str:
    """Return how the names of libraries of a source begin."""
    return f"{source.stem}-{level}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"


def place(folder: Path, stem: str, content: bytes) -> Path:
    """Return where a library is kept: its name ends with the hash of its content."""
    return folder / f"{stem}-{hashlib.sha256(content).hexdigest()}.so"


def _features() -> list[str]:
    """Return the flags of this processor; empty where the system does not list them."""
    with suppress(OSError, UnicodeDecodeError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return line.partition(":")[2].split()
    return []
