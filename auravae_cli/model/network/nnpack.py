"""3x3 convolutions on a CPU by Winograd's method: NNPACK's F(6x6, 3x3), which is part of torch.

One of its threads does twice the work of oneDNN's direct method. Its error is about 1e-5 of the
features' size, a hundredth of an 8-bit step. Its own threads gain little, so it is given one, and every
thread of the crew calls it separately, with a strip of rows or some of the output channels.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.network.torch_threads import num_threads, run_all
from auravae_cli.model.planning.layer_costs import LEAST_CHANNELS, LEAST_SIDE


def convolve_inner(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Run a 3x3 convolution with zeros only on the left and the right: [B, C, n + 2, W] => n rows."""
    bias = conv.bias
    if not suits(conv, x):
        return F.conv2d(x, conv.weight, bias, padding=(0, 1))
    assert bias is not None
    threads = num_threads(x.device)
    if threads == 1:
        return _nnpack(x, conv.weight, bias)
    # Few rows for many channels: transforming the weights is most of the work, so it is shared.
    weights, biases = conv.weight.chunk(threads), bias.chunk(threads)
    parts: list[Tensor | None] = [None] * len(weights)

    def compute(index: int) -> None:
        parts[index] = _nnpack(x, weights[index], biases[index])

    run_all([partial(compute, index) for index in range(len(weights))], threads)
    return torch.cat([part for part in parts if part is not None], dim=1)


def _nnpack(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch._nnpack_spatial_convolution(x.contiguous(), weight, bias, (0, 1))


def suits(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether NNPACK supports such features, and is faster for them."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and len(x) > 0
        and conv.bias is not None
        and conv.in_channels >= LEAST_CHANNELS
        and min(x.shape[2:]) >= LEAST_SIDE
        and has_nnpack()
    )


@cache
def has_nnpack() -> bool:
    """Return whether this torch includes NNPACK, and NNPACK supports this processor."""
    given = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # NNPACK creates as many threads of its own as this says at its first call
    try:
        if not torch._nnpack_available():  # which also initialises it
            return False
        x = torch.ones(1, 16, 16, 16)
        torch._nnpack_spatial_convolution(x, torch.ones(16, 16, 3, 3), None, 1)
    except (AttributeError, RuntimeError):
        return False
    finally:
        torch.set_num_threads(given)
    return True
