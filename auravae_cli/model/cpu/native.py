"""The CPU's kernels in C, native.c; `compiled` finds or builds their library.

If there is no compiler, or what it builds is wrong, there are none, and torch does the work.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from auravae_cli.errors import OutputError
from auravae_cli.model.cpu.compiled import library
from auravae_cli.model.planning.layer_costs import POINTS
from auravae_cli.model.spec.config import HEAD_CHANNELS

SOURCE = Path(__file__).with_suffix(".c")
PLAIN, NATIVE = "plain", "native"
VARIABLE = "AURAVAE_KERNELS"
TOLERANCE = 1e-4
Found = TypeVar("Found")


class KernelCall(ctypes.Structure):
    """The structure of native.c: addresses, strides in numbers, sizes."""

    _fields_ = tuple(
        (name, kind)
        for kind, names in (
            (ctypes.c_void_p, "x weights bias scale shift residual out memory"),
            (ctypes.c_int64, "memory_size x_channel residual_channel out_channel"),
            (ctypes.c_int32, "channels height width channels_out start rows doubled are_taps"),
        )
        for name in names.split()
    )


class Convolutions:
    """The convolutions of a library; each runs in the calling thread, without Python's lock."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.path = Path(library._name)
        self.channels_out: int = (
            library.channels_out_at_once()
        )  # 0 if this processor is not supported
        self.convolve, self.halve, self.mix = library.convolve, library.halve, library.mix
        for function in (self.convolve, self.halve, self.mix):
            function.restype, function.argtypes = ctypes.c_int64, [ctypes.POINTER(KernelCall)]


class Attention:
    """The attention of a library: of one head, in the calling thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._memory, self._attend = library.attention_memory, library.attend
        address, number = ctypes.c_void_p, ctypes.c_int64
        self._memory.restype, self._memory.argtypes = number, [number]
        self._attend.restype = None
        self._attend.argtypes = [address, number, address, address, number]
        self._attend.argtypes += [address, number, number, number, address]

    def memory_size(self, queries: int) -> int:
        """The numbers of memory that it takes; 0 if this processor is not supported."""
        return int(self._memory(queries))

    def attend(
        self, out: np.ndarray, queries: np.ndarray, keys: np.ndarray, values: np.ndarray
    ) -> None:
        """Write attention to ``out``: of ``queries``, both [64, n, W], on ``keys`` and ``values`` [64, m, W].

        Each of these float32, with rows that follow one another; keys and values lie alike.
        """
        number, cells = queries[0].size, keys[0].size
        memory = np.empty(self.memory_size(number), np.float32)
        self._attend(
            *(queries.ctypes.data, queries.strides[0] // 4, keys.ctypes.data, values.ctypes.data),
            *(keys.strides[0] // 4, out.ctypes.data, out.strides[0] // 4, number, cells),
            memory.ctypes.data,
        )


class Kernels(Convolutions):
    """The functions of native.c."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self.attention = Attention(library)
        self.measure, self.lanes = library.measure, int(library.lanes())
        self._at_points = library.at_points
        address, number, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        self.measure.restype = None
        self.measure.argtypes = [address, size, number, size, size, address, address, size]
        self._at_points.restype, self._at_points.argtypes = None, [address, address, size, size]

    def at_points(self, taps: np.ndarray) -> np.ndarray:
        """Transform 3x3 kernels [groups, 9, depth, channels_out] => [groups, POINTS, depth, channels_out]."""
        groups, _, depth, channels_out = taps.shape
        made = np.empty((groups, POINTS, depth, channels_out), np.float32)
        self._at_points(made.ctypes.data, taps.ctypes.data, groups, depth * channels_out)
        return made


def are_turned_off() -> bool:
    """Return whether the environment turns off our own kernels, here or on a GPU."""
    return os.environ.get(VARIABLE) == PLAIN


def engine_for(dtype: str) -> str:
    """Return what runs a network of this number format on a CPU: these kernels, or torch."""
    return NATIVE if dtype == "float32" and kernels() is not None else PLAIN


def kernels() -> Kernels | None:
    """Return the kernels for this processor, or None."""
    found = _found()
    return found if isinstance(found, Kernels) else None


def trouble() -> str | None:
    """Return why there are no kernels; None if there are, or they are turned off."""
    found = _found()
    return found if isinstance(found, str) else None


@cache
def _found() -> Kernels | str | None:
    return find(SOURCE, Kernels, are_right)


def find(
    source: Path, kind: Callable[[ctypes.CDLL], Found], is_right: Callable[[Found], bool]
) -> Found | str | None:
    """Return the kernels of a file, after testing them, or why there are none; None if they are turned off."""
    if are_turned_off():
        return None
    try:
        found = kind(library(source))
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or b"").decode(errors="replace").splitlines()
        return f"{error.cmd[0]} could not build them ({lines[0] if lines else error})"
    except (OSError, subprocess.SubprocessError, OutputError) as error:
        return str(error)
    return found if is_right(found) else "those that were built give wrong numbers"


def in_groups(weights: np.ndarray, channels_out: int) -> np.ndarray:
    """Group [O, depth, points] => [ceil(O / channels_out), points, depth, channels_out] float32."""
    outputs, depth, points = weights.shape
    groups = -(-outputs // channels_out)
    padded = np.zeros((groups * channels_out, depth, points), np.float32)
    padded[:outputs] = weights
    parted = padded.reshape(groups, channels_out, depth, points)
    return np.ascontiguousarray(parted.transpose(0, 3, 2, 1))


def are_right(found: Kernels) -> bool:
    """Return whether convolutions of a small map, and attention over it, agree with the definition."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3, 14, 22)).astype(np.float32)
    weights = generator.standard_normal((5, 3, 3, 3)).astype(np.float32)
    bias = generator.standard_normal(5).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    same = np.einsum("ihwyx,oiyx->ohw", windows, weights) + bias[:, None, None]
    halved = np.einsum("ihwyx,oiyx->ohw", windows[:, 1::2, 1::2], weights) + bias[:, None, None]
    taps = in_groups(weights.reshape(5, 3, 9), found.channels_out)
    flat = in_groups(weights.reshape(5, 27, 1), found.channels_out)
    mixed = np.einsum("ihw,oi->ohw", x, weights[:, :, 0, 0]) + bias[:, None, None]
    narrow = in_groups(weights[:, :, 0, :1], found.channels_out)
    for function, ready, expected in (
        (found.convolve, found.at_points(taps), same),
        (found.halve, flat, halved),
        (found.mix, narrow, mixed),
    ):
        out = run(function, x, ready, bias, expected)
        if not np.abs(out - expected).max() < TOLERANCE:
            return False
    return attends(found.attention, TOLERANCE)


def attends(found: Attention, tolerance: float) -> bool:
    """Return whether attention over a few cells agrees with the definition."""
    if not found.memory_size(1):
        return False
    generator = np.random.default_rng(0)
    q, k, v = (
        generator.standard_normal((HEAD_CHANNELS, 1, cells), np.float32) for cells in (5, 300, 300)
    )
    out = np.empty_like(q)
    found.attend(out, q, k, v)
    scores = q[:, 0].T @ k[:, 0] / np.sqrt(np.float32(HEAD_CHANNELS))
    weights = np.exp(scores - scores.max(1, keepdims=True))
    expected = v[:, 0] @ (weights / weights.sum(1, keepdims=True)).T
    return bool(np.abs(out[:, 0] - expected).max() < tolerance * np.abs(expected).max())


def run(
    function: Callable[[KernelCall], int],
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    like: np.ndarray,
) -> np.ndarray:
    """Run a kernel on a whole small map [C, H, W]; the result has the shape of ``like``."""
    out, memory = np.full(like.shape, np.nan, np.float32), np.zeros(1 << 20, np.float32)
    call = KernelCall(x=x.ctypes.data, weights=weights.ctypes.data, bias=bias.ctypes.data)
    call.out, call.memory, call.memory_size = out.ctypes.data, memory.ctypes.data, memory.size
    call.x_channel, call.out_channel = x[0].size, out[0].size
    sizes: list[int] = [*x.shape, *out.shape]
    call.channels, call.height, call.width, call.channels_out, call.rows, _ = sizes
    function(call)  # leaves NaN if it does nothing
    return out
