"""The grid of a decoder: the part of an error that repeats with the cells of the latent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from auravae_cli.images.read import Pixels

LUMA = np.array([0.299, 0.587, 0.114])  # of BT.601
LEAST_BLOCK, CELLS_IN_BLOCK = 64, 4  # pixels, and cells a side
FLAT_SHARE = 0.1  # of all blocks: where a grid is seen

Floats = NDArray[np.floating]


def flat_grid(image: Pixels, reference: Pixels, period: int) -> float | None:
    """Return the rms of the grid of an 8-bit picture [H, W, 3], in levels of 255.

    It is that of the error of luma on the flattest tenth of all blocks of 64 pixels (or of 4 cells, if
    that is more), where nothing hides it; ``period`` is the side of a cell. None if no block fits. The
    definition is ours; its power is that of the DC and the harmonics of 1 / ``period``, as in measures of
    blocking (Wang, Bovik and Evans 2000), less what chance would give.
    """
    error = (image.astype(np.float64) - reference) @ LUMA
    luma = reference @ LUMA
    side = block_side(period)
    blocks = []
    for top in range(0, error.shape[0] - side + 1, side):
        for left in range(0, error.shape[1] - side + 1, side):
            part = np.s_[top : top + side, left : left + side]
            blocks.append((float(luma[part].std()), top, left, error[part]))
    if not blocks or period < 2:
        return None
    blocks.sort(key=lambda block: block[:3])
    flattest = blocks[: max(1, round(FLAT_SHARE * len(blocks)))]
    squares = [grid(error, period) ** 2 for *_, error in flattest]
    return float(np.sqrt(np.mean(squares)))


def block_side(period: int) -> int:
    """Return the side of a block: whole cells, at least 4 of them, and at least 64 pixels where that fits."""
    return period * max(CELLS_IN_BLOCK, LEAST_BLOCK // period)


def grid(error: Floats, period: int) -> float:
    """Return the rms of the part of a block's error [n * period, n * period] that repeats with the period.

    Less what chance leaves: the mean over n cells keeps 1/n of the power of what does not repeat.
    """
    rows, columns = (side // period for side in error.shape)
    cell = error.reshape(rows, period, columns, period).mean((0, 2))
    repeated, other = cell.var(), error.var() - cell.var()
    return float(np.sqrt(max(0.0, repeated - other / (rows * columns - 1))))
