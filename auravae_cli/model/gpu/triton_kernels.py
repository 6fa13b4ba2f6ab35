"""Triton kernels for the operations between two convolutions, on features in channels-last memory.

The kernels see features as rows of C channels, one row per position of a picture: [B, L, C], dense.
Statistics are computed per channel over chunks of rows. The chunks run in parallel, so that a batch of
one fills a GPU, and are merged in a fixed order (Chan, Golub and LeVeque, 1983), so that a result
depends neither on the batch nor on timing. All arithmetic is in float32.

Import this only if Triton is installed; `fused` does, and has every operation in torch as well.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

STEP_ROWS = 16  # rows that a program processes at once within a chunk
APPLY_ROWS = 32  # rows that a program normalises
BLOCK_CHANNELS = 128  # of a program, at most: 256 contiguous bytes in 16-bit formats
MERGED_VALUES = 4096  # of the chunks' statistics that a program merges at once
WARPS = 4
# These differ from picture to picture, and no kernel is compiled again for them. Only the number of
# channels must be known as a multiple of 16, for accesses of 16 bytes.
SIZES = ["length", "out_length", "phases_length", "width", "chunks"]


@triton.jit
def _update(count, mean, squares, values, present):
    """Welford's step: add a value to every slot of the rows that are ``present``, [rows, 1]."""
    count += tl.where(present, 1.0, 0.0)
    delta = values - mean
    mean += tl.where(present, delta * (1.0 / tl.maximum(count, 1.0)), 0.0)
    squares += tl.where(present, delta * (values - mean), 0.0)
    return count, mean, squares


@triton.jit
def _store_statistics(
    mean_ptr, squares_ptr, count, mean, squares, chunk, batch, channel, in_width, channels
):
    """Merge a program's slots, [rows, channels], and write its chunk's mean and squares."""
    total = tl.sum(count, 0)
    middle = tl.sum(count * mean, 0) / total
    delta = mean - middle[None, :]
    spread = tl.sum(squares + count * delta * delta, 0)
    place = (batch * tl.num_programs(0) + chunk) * channels + channel
    tl.store(mean_ptr + place, middle, mask=in_width)
    tl.store(squares_ptr + place, spread, mask=in_width)


@triton.jit(do_not_specialize=SIZES)
def _statistics_kernel(
    x_ptr,
    mean_ptr,
    squares_ptr,
    length,
    channels,
    chunk_rows,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    chunk = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_width = channel < channels
    start = chunk * chunk_rows
    x_ptr += (batch * length + start) * channels
    size = tl.minimum(chunk_rows, length - start).to(tl.int32)
    count = tl.zeros((ROWS, 1), tl.float32)
    mean = tl.zeros((ROWS, BLOCK), tl.float32)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, size, ROWS):
        row = first + tl.arange(0, ROWS)
        in_chunk = (row < size)[:, None]
        present = in_chunk & in_width[None, :]
        x = tl.load(x_ptr + row[:, None] * channels + channel[None, :], mask=present, other=0.0)
        count, mean, squares = _update(count, mean, squares, x.to(tl.float32), in_chunk)
    _store_statistics(
        mean_ptr, squares_ptr, count, mean, squares, chunk, batch, channel, in_width, channels
    )


@triton.jit(do_not_specialize=SIZES)
def _affine_kernel(
    mean_ptr,
    squares_ptr,
    weight_ptr,
    bias_ptr,
    pending_ptr,
    scale_ptr,
    shift_ptr,
    chunks,
    chunk_rows,
    length,
    channels,
    eps,
    EACH: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKS: tl.constexpr,
    HAS_PENDING: tl.constexpr,
):
    """One group of one picture: merge its channels' chunks, and write the norm's factors and addends."""
    batch = tl.program_id(1).to(tl.int64)
    within = tl.arange(0, BLOCK)
    in_group = within < EACH
    channel = tl.program_id(0) * EACH + within
    pending = tl.zeros((BLOCK,), tl.float32)
    if HAS_PENDING:
        pending = tl.load(pending_ptr + channel, mask=in_group, other=0.0)
    total = 0.0
    mean = 0.0
    squares = 0.0
    for first in range(0, chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        present = (chunk < chunks)[:, None] & in_group[None, :]
        place = (batch * chunks + chunk)[:, None] * channels + channel[None, :]
        means = tl.load(mean_ptr + place, mask=present, other=0.0) + pending[None, :]
        spreads = tl.load(squares_ptr + place, mask=present, other=0.0)
        rows = tl.minimum(chunk_rows, length - chunk * chunk_rows)
        count = tl.where(present, rows[:, None].to(tl.float32), 0.0)
        added = tl.sum(tl.sum(count, 1), 0)
        middle = tl.sum(tl.sum(count * means, 1), 0) / added
        around = means - middle
        spread = tl.sum(tl.sum(spreads + count * around * around, 1), 0)
        after = total + added
        delta = middle - mean
        mean += delta * (added / after)
        squares += spread + delta * delta * (total * (added / after))
        total = after
    inverse = tl.rsqrt(squares / total + eps)
    scale = tl.load(weight_ptr + channel, mask=in_group, other=0.0) * inverse
    shift = tl.load(bias_ptr + channel, mask=in_group, other=0.0) + (pending - mean) * scale
    tl.store(scale_ptr + batch * channels + channel, scale, mask=in_group)
    tl.store(shift_ptr + batch * channels + channel, shift, mask=in_group)


@triton.jit(do_not_specialize=SIZES)
def _apply_kernel(
    x_ptr,
    scale_ptr,
    shift_ptr,
    out_ptr,
    length,
    channels,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    batch = tl.program_id(2).to(tl.int64)
    start = tl.program_id(0).to(tl.int64) * ROWS
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_width = channel < channels
    row = tl.arange(0, ROWS)
    present = (row < length - start)[:, None] & in_width[None, :]
    base = (batch * length + start) * channels
    place = row[:, None] * channels + channel[None, :]
    scale = tl.load(scale_ptr + batch * channels + channel, mask=in_width, other=0.0)
    shift = tl.load(shift_ptr + batch * channels + channel, mask=in_width, other=0.0)
    x = tl.load(x_ptr + base + place, mask=present, other=0.0).to(tl.float32)
    y = x * scale[None, :] + shift[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out_ptr + base + place, y.to(out_ptr.dtype.element_ty), mask=present)


@triton.jit(do_not_specialize=SIZES)
def _add_kernel(
    changed_ptr,
    x_ptr,
    bias_ptr,
    out_ptr,
    mean_ptr,
    squares_ptr,
    length,
    out_length,
    width,
    channels,
    chunk_rows,
    HAS_BIAS: tl.constexpr,
    BORDER: tl.constexpr,
    STATISTICS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """changed + x + bias, written with room for another column if there is a BORDER."""
    chunk = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_width = channel < channels
    start = chunk * chunk_rows
    line = start // width
    changed_ptr += (batch * length + start) * channels
    x_ptr += (batch * length + start) * channels
    out_ptr += (batch * out_length + start + (line if BORDER else 0)) * channels
    size = tl.minimum(chunk_rows, length - start).to(tl.int32)
    column = (start - line * width).to(tl.int32)
    bias = tl.zeros((BLOCK,), tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + channel, mask=in_width, other=0.0)
    count = tl.zeros((ROWS, 1), tl.float32)
    mean = tl.zeros((ROWS, BLOCK), tl.float32)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, size, ROWS):
        row = first + tl.arange(0, ROWS)
        in_chunk = (row < size)[:, None]
        present = in_chunk & in_width[None, :]
        place = row[:, None] * channels + channel[None, :]
        changed = tl.load(changed_ptr + place, mask=present, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + place, mask=present, other=0.0).to(tl.float32)
        y = (changed + x + bias[None, :]).to(out_ptr.dtype.element_ty)
        if BORDER:
            place = (row + (column + row) // width)[:, None] * channels + channel[None, :]
        tl.store(out_ptr + place, y, mask=present)
        if STATISTICS:  # of the stored values, which the norm reads
            count, mean, squares = _update(count, mean, squares, y.to(tl.float32), in_chunk)
    if STATISTICS:
        _store_statistics(
            mean_ptr, squares_ptr, count, mean, squares, chunk, batch, channel, in_width, channels
        )


@triton.jit(do_not_specialize=SIZES)
def _interleave_kernel(
    phases_ptr,
    out_ptr,
    mean_ptr,
    squares_ptr,
    length,
    phases_length,
    width,
    channels,
    chunk_rows,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Four pictures of (h + 1, w + 1), side by side in the channels, => one of (2 h, 2 w).

    ``width`` is 2 w. Phase (a, b) of output (2 i + a, 2 j + b) lies at (i + a, j + b).
    """
    chunk = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_width = channel < channels
    start = chunk * chunk_rows
    top = start // width
    phases_ptr += (batch * phases_length + (top // 2) * (width // 2 + 1)) * channels * 4
    out_ptr += (batch * length + start) * channels
    size = tl.minimum(chunk_rows, length - start).to(tl.int32)
    parity = (top % 2).to(tl.int32)
    column = (start - top * width).to(tl.int32)
    count = tl.zeros((ROWS, 1), tl.float32)
    mean = tl.zeros((ROWS, BLOCK), tl.float32)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, size, ROWS):
        row = first + tl.arange(0, ROWS)
        in_chunk = (row < size)[:, None]
        present = in_chunk & in_width[None, :]
        y = parity + (column + row) // width  # below the even line that phases_ptr points to
        x = (column + row) % width
        source = (y // 2 + y % 2) * (width // 2 + 1) + x // 2 + x % 2
        source = source * 4 + (y % 2) * 2 + x % 2
        value = tl.load(
            phases_ptr + source[:, None] * channels + channel[None, :], mask=present, other=0.0
        )
        tl.store(out_ptr + row[:, None] * channels + channel[None, :], value, mask=present)
        count, mean, squares = _update(count, mean, squares, value.to(tl.float32), in_chunk)
    _store_statistics(
        mean_ptr, squares_ptr, count, mean, squares, chunk, batch, channel, in_width, channels
    )


def statistics(x: Tensor, chunk_rows: int) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] => mean and sum of squared differences from it, [B, chunks, C] each."""
    batch, channels, length = _sizes(x)
    found = _empty_statistics(x, chunk_rows)
    block = _block(channels)
    grid = (found[0].shape[1], triton.cdiv(channels, block), batch)
    _statistics_kernel[grid](
        x, *found, length, channels, chunk_rows, ROWS=STEP_ROWS, BLOCK=block, num_warps=WARPS
    )
    return found


def affine(
    mean: Tensor,
    squares: Tensor,
    chunk_rows: int,
    length: int,
    weight: Tensor,
    bias: Tensor,
    pending: Tensor | None,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return the factor and addend of a norm over groups, [B, C] each, with ``pending`` still to be added."""
    batch, chunks, channels = mean.shape
    scale, shift = (mean.new_empty(batch, channels) for _ in range(2))
    each = channels // groups
    block = triton.next_power_of_2(each)
    _affine_kernel[(groups, batch)](
        mean,
        squares,
        weight,
        bias,
        weight if pending is None else pending,
        scale,
        shift,
        chunks,
        chunk_rows,
        length,
        channels,
        eps,
        EACH=each,
        BLOCK=block,
        CHUNKS=min(MERGED_VALUES // block, 256),
        HAS_PENDING=pending is not None,
        num_warps=WARPS,
    )
    return scale, shift


def apply(x: Tensor, scale: Tensor, shift: Tensor, silu: bool, out: Tensor) -> Tensor:
    """Write x * scale + shift, then SiLU if requested, to ``out``, which may be ``x``."""
    batch, channels, length = _sizes(x)
    block = _block(channels)
    grid = (triton.cdiv(length, APPLY_ROWS), triton.cdiv(channels, block), batch)
    _apply_kernel[grid](
        x,
        scale,
        shift,
        out,
        length,
        channels,
        SILU=silu,
        ROWS=APPLY_ROWS,
        BLOCK=block,
        num_warps=WARPS,
    )
    return out


def add(
    changed: Tensor, x: Tensor, bias: Tensor | None, out: Tensor, chunk_rows: int | None
) -> tuple[Tensor, Tensor] | None:
    """Write changed + x + bias to ``out``, and return its statistics if ``chunk_rows`` is given.

    ``out`` may be ``changed``, or larger by a row and a column, which are not written.
    """
    batch, channels, length = _sizes(x)
    block = _block(channels)
    has_border = out.shape != x.shape
    rows = chunk_rows or STEP_ROWS * 2
    found = _empty_statistics(x, rows) if chunk_rows else None
    grid = (triton.cdiv(length, rows), triton.cdiv(channels, block), batch)
    _add_kernel[grid](
        changed,
        x,
        changed if bias is None else bias,
        out,
        *(found or (changed, changed)),
        length,
        out.shape[2] * out.shape[3],
        x.shape[3],
        channels,
        rows,
        HAS_BIAS=bias is not None,
        BORDER=has_border,
        STATISTICS=found is not None,
        ROWS=STEP_ROWS,
        BLOCK=block,
        num_warps=WARPS,
    )
    return found


def interleave(phases: Tensor, out: Tensor, chunk_rows: int) -> tuple[Tensor, Tensor]:
    """[B, 4 C, h + 1, w + 1] => ``out`` [B, C, 2 h, 2 w], and its statistics."""
    batch, channels, length = _sizes(out)
    block = _block(channels)
    found = _empty_statistics(out, chunk_rows)
    grid = (found[0].shape[1], triton.cdiv(channels, block), batch)
    _interleave_kernel[grid](
        phases,
        out,
        *found,
        length,
        phases.shape[2] * phases.shape[3],
        out.shape[3],
        channels,
        chunk_rows,
        ROWS=STEP_ROWS,
        BLOCK=block,
        num_warps=WARPS,
    )
    return found


def _sizes(x: Tensor) -> tuple[int, int, int]:
    batch, channels, height, width = x.shape
    return batch, channels, height * width


def _block(channels: int) -> int:
    return int(min(BLOCK_CHANNELS, triton.next_power_of_2(channels)))


def _empty_statistics(x: Tensor, chunk_rows: int) -> tuple[Tensor, Tensor]:
    batch, channels, length = _sizes(x)
    shape = (batch, triton.cdiv(length, chunk_rows), channels)
    return (
        torch.empty(shape, dtype=torch.float32, device=x.device),
        torch.empty(shape, dtype=torch.float32, device=x.device),
    )
