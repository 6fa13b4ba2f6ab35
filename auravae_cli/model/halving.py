"""Batches that do not fit into memory, in halves: arrays or tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from auravae_cli.errors import ComputeError
from auravae_cli.model.planning.run_plan import ADVICE
from auravae_cli.symmetry.arrays import library_of

Function = Callable[[Any], Any]


def run_halving(function: Function, batch: Any, last_resort: Function = lambda item: None) -> Any:
    """Return ``function(batch)``; if memory runs out, split the batch in halves, down to single items.

    ``last_resort`` runs a single item that does not fit. Raises ComputeError if that returns None.
    """
    result = attempt(function, batch)
    if result is None and len(batch) == 1:
        result = last_resort(batch)
    if result is not None:
        return result
    if len(batch) == 1:
        size = " x ".join(map(str, batch.shape[-2:]))
        raise ComputeError(f"not enough memory on the device for one item of {size}; {ADVICE}")
    half = len(batch) // 2
    parts = [run_halving(function, part, last_resort) for part in (batch[:half], batch[half:])]
    return library_of(batch).concatenate(parts)


def attempt(function: Function, batch: Any) -> Any:
    """Return ``function(batch)``; None if memory ran out, after releasing what the failed run took."""
    try:
        return function(batch)
    except MemoryError:
        pass
    except RuntimeError as error:  # torch's
        is_told = type(error).__name__ == "OutOfMemoryError"
        if not is_told and "can't allocate memory" not in str(error):
            raise
    torch = sys.modules.get("torch")
    if (
        torch is not None and torch.cuda.is_available()
    ):  # outside the handler: the error keeps tensors
        torch.cuda.empty_cache()
    return None
