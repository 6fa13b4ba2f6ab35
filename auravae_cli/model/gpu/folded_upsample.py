"""Folded upsampling: doubling a picture and convolving it, without the doubled picture.

Several of the nine taps of a 3x3 convolution over doubled pixels fall on the same pixel. Added up,
they leave four kernels of 2x2 taps, one per *phase* (even or odd row and column) of the result:
4 / 9 of the products, and exactly the same function. Per axis, with taps w0, w1, w2:

    even rows:  w0, w1 + w2   on pixels i - 1, i
    odd rows:   w0 + w1, w2   on pixels i, i + 1

The four can run as one transposed convolution of stride 2, or as one convolution with four times
the channels, whose result is interleaved. Which is faster depends on the GPU and the size.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Which of the three taps add up to each tap of a transposed convolution, and of the two phases.
TRANSPOSED = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))
PHASES = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))


def fold_transposed(weight: Tensor) -> Tensor:
    """Fold [out, in, 3, 3] => [in, out, 4, 4], for ``conv_transpose2d`` of stride 2 and padding 1."""
    taps = weight.new_tensor(TRANSPOSED)
    # One axis after the other: sums of two, which are the same for flipped weights.
    rows = torch.einsum("ky,oiyx->iokx", taps, weight)
    return torch.einsum("lx,iokx->iokl", taps, rows)


def fold_merged(weight: Tensor) -> Tensor:
    """Fold [out, in, 3, 3] => [4 * out, in, 2, 2], for ``conv2d`` of padding 1 and `fused.interleave`."""
    taps = weight.new_tensor(PHASES)
    rows = torch.einsum("aky,oiyx->aoikx", taps, weight)
    return torch.einsum("blx,aoikx->aboikl", taps, rows).flatten(0, 2)
