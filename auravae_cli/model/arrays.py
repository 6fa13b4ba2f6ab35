"""Arrays in, arrays out; tensors in, tensors out: for what computes with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_numpy(array: Any) -> NDArray[np.float32]:
    """Return an array or a torch tensor as float32 on the CPU."""
    if not isinstance(array, np.ndarray):
        array = array.detach().cpu().float().numpy()
    return np.asarray(array, np.float32)


def like(result: NDArray[np.float32], given: Any) -> Any:
    """Return a numpy result in the form of the input: an array, or a tensor on the same device."""
    if isinstance(given, np.ndarray):
        return result
    import torch  # loaded already, since the caller has a tensor

    return torch.from_numpy(result).to(given.device)
