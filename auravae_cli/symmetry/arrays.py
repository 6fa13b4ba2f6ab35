"""Arrays of numpy or tensors of torch: functions that take either ask here which they were given."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def library_of(array: Any) -> Any:
    """Return numpy, or torch, whose functions of the same names mostly take the same arguments."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def as_numpy(array: Any) -> NDArray[np.float32]:
    """Return an array or a torch tensor as float32 on the CPU."""
    if not isinstance(array, np.ndarray):
        array = array.detach().cpu().float().numpy()
    return np.asarray(array, np.float32)


def like(result: NDArray[np.float32], given: Any) -> Any:
    """Return a numpy result in the form of the input: an array, or a tensor on the same device."""
    if isinstance(given, np.ndarray):
        return result
    return library_of(given).from_numpy(result).to(given.device)
