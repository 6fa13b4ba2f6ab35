"""kernels.c for torch: an equivariant 3x3 convolution, and group norm with SiLU, both with gradients.

Features are bfloat16 [B, 4 * C, H, W], contiguous, W a multiple of 16, C of 8; weights, biases and
their gradients are float32.
"""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auravae_cli.errors import OutputError
from auravae_cli.model.cpu import compiled, native
from auravae_cli.train import parity

SOURCE = Path(__file__).with_suffix(".c")

LANES = 16


class _Convolution(ctypes.Structure):
    _fields_ = tuple(
        (name, kind)
        for kind, names in (
            (ctypes.c_void_p, "x weights bias residual y dy dweights dbias"),
            (ctypes.c_int32, "batch channels out height width pictures doubled adjoint threads"),
        )
        for name in names.split()
    )


class _Norm(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in [
                "x",
                "scale",
                "shift",
                "y",
                "mean",
                "deviation",
                "dy",
                "dx",
                "dscale",
                "dshift",
            ]
        ),
        *((name, ctypes.c_int32) for name in ["batch", "channels", "groups", "threads"]),
        ("pixels", ctypes.c_int64),
        ("epsilon", ctypes.c_float),
    )


class Kernels:
    """The functions of the library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.out_at_once: int = library.out_at_once()
        self.convolve, self.convolve_weights = library.convolve, library.convolve_weights
        for function in (self.convolve, self.convolve_weights):
            function.restype, function.argtypes = ctypes.c_int32, [ctypes.POINTER(_Convolution)]
        self.normalise, self.normalise_back = library.normalise, library.normalise_back
        for function in (self.normalise, self.normalise_back):
            function.restype, function.argtypes = None, [ctypes.POINTER(_Norm)]


@cache
def find() -> Kernels | None:
    """Return the kernels; None if the processor has no AVX-512 BF16, or they cannot be built."""
    if native.are_turned_off():
        return None
    try:
        kernels = Kernels(compiled.library(SOURCE, "-fopenmp"))
    except (OSError, subprocess.SubprocessError, OutputError):
        return None
    return kernels if kernels.out_at_once else None


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class _Convolve(torch.autograd.Function):
    """x, weights [4, out, 9 * in], bias [out], residual => convolution + bias + residual."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        doubled: bool,
        kernels: Kernels,
    ) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weights)
        ctx.facts = kernels, doubled, residual is not None
        return _run(kernels, x, weights, bias, residual, doubled)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weights = ctx.saved_tensors
        kernels, doubled, has_residual = ctx.facts
        dy = dy.contiguous()
        dweights, dbias = _run_weights(kernels, x, weights, dy, doubled)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _run(kernels, dy, weights, is_adjoint=True)
            if doubled:
                dx = _sums_of_squares(dx)
        return dx, dweights, dbias, dy if has_residual else None, None, None


def _sums_of_squares(x: Tensor) -> Tensor:
    """Sum each 2 x 2 pixels: [B, C, 2 * H, 2 * W] => [B, C, H, W]."""
    rows = x[..., ::2, :] + x[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _run(
    kernels: Kernels,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    doubled: bool = False,
    is_adjoint: bool = False,
) -> Tensor:
    height, width = (side * (1 + doubled) for side in x.shape[2:])
    out = weights.shape[2] // parity.SLOTS if is_adjoint else weights.shape[1]
    y = x.new_empty(len(x), 4 * out, height, width)
    weights = weights.detach().contiguous()
    bias = None if bias is None else bias.detach().float().contiguous()
    residual = None if residual is None else residual.contiguous()
    call = _Convolution(
        x=_address(x), weights=_address(weights), bias=_address(bias), residual=_address(residual),
        y=_address(y), channels=x.shape[1] // 4, out=out, **_rows(y), doubled=doubled, adjoint=is_adjoint,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    _check(kernels.convolve(call))
    return y


def _run_weights(
    kernels: Kernels, x: Tensor, weights: Tensor, dy: Tensor, doubled: bool
) -> tuple[Tensor, Tensor]:
    out = weights.shape[1]
    dweights, dbias = torch.empty(weights.shape), torch.empty(out)
    call = _Convolution(
        x=_address(x), dy=_address(dy), dweights=_address(dweights), dbias=_address(dbias),
        channels=x.shape[1] // 4, out=out, **_rows(dy), doubled=doubled, threads=torch.get_num_threads(),
    )  # fmt: skip
    _check(kernels.convolve_weights(call))
    return dweights, dbias


def _rows(y: Tensor) -> dict[str, int]:
    """Return the sizes of a result, [B, C, H, W], with two pictures of half a vector a row."""
    batch, _, height, width = y.shape
    pictures = 2 if width == LANES // 2 else 1
    assert width * pictures % LANES == 0 == batch % pictures
    return {
        "batch": batch // pictures,
        "height": height,
        "width": width * pictures,
        "pictures": pictures,
    }


def _check(status: int) -> None:
    if status:
        raise MemoryError


class _Normalise(torch.autograd.Function):
    """silu(group_norm(x))."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        groups: int,
        epsilon: float,
        kernels: Kernels,
    ) -> Tensor:
        x = x.contiguous()
        batch, channels, height, width = x.shape
        scale, shift = scale.detach().float().contiguous(), shift.detach().float().contiguous()
        y = torch.empty_like(x)
        mean, deviation = x.new_empty(2, batch, groups, dtype=torch.float32)
        call = _Norm(
            _address(x), _address(scale), _address(shift), _address(y), _address(mean), _address(deviation),
            None, None, None, None, batch, channels, groups, torch.get_num_threads(), height * width, epsilon,
        )  # fmt: skip
        kernels.normalise(call)
        ctx.save_for_backward(x, scale, shift, mean, deviation)
        ctx.facts = groups, epsilon, kernels
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, scale, shift, mean, deviation = ctx.saved_tensors
        groups, epsilon, kernels = ctx.facts
        batch, channels, height, width = x.shape
        dy, dx = dy.contiguous(), torch.empty_like(x)
        dscale, dshift = x.new_empty(2, batch, channels, dtype=torch.float32)
        call = _Norm(
            _address(x), _address(scale), _address(shift), None, _address(mean), _address(deviation),
            _address(dy), _address(dx), _address(dscale), _address(dshift),
            batch, channels, groups, torch.get_num_threads(), height * width, epsilon,
        )  # fmt: skip
        kernels.normalise_back(call)
        return dx, dscale.sum(0), dshift.sum(0), None, None, None


def convolve(
    kernels: Kernels,
    x: Tensor,
    representatives: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    doubled: bool = False,
) -> Tensor:
    """Run an equivariant 3x3 convolution by its representatives [out, 4 * in, 3, 3] and bias [out].

    ``doubled``: each pixel of ``x`` counts as 2 x 2. ``residual`` is added. The width of the result is a multiple
    of 16, or 8 if their number is even: then two pictures fill a vector.
    """
    weights = parity.from_representatives(representatives)
    assert x.dtype == torch.bfloat16 and weights.dtype == torch.float32
    y: Tensor = _Convolve.apply(x, weights, bias, residual, doubled, kernels)
    return y


def normalise(
    kernels: Kernels, x: Tensor, scale: Tensor, shift: Tensor, groups: int, epsilon: float
) -> Tensor:
    """Return silu(group_norm(x)), with statistics in float32."""
    assert x.dtype == torch.bfloat16
    y: Tensor = _Normalise.apply(x, scale, shift, groups, epsilon, kernels)
    return y
