"""A batch that does not fit the memory is run in halves."""

from __future__ import annotations

import pytest
import torch

from auravae_cli.errors import ComputeError
from auravae_cli.model.halving import run_halving

BATCH = torch.arange(7.0)[:, None, None] * torch.ones(7, 2, 3)


class Limited:
    """Doubles a batch of at most ``limit`` items; a larger one runs out of memory."""

    def __init__(self, limit, error=None):
        self.limit, self.sizes = limit, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def __call__(self, batch):
        self.sizes.append(len(batch))
        if len(batch) > self.limit:
            raise self.error
        return 2 * batch


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_the_result_is_whole_and_in_order(limit):
    assert torch.equal(run_halving(Limited(limit), BATCH), 2 * BATCH)


def test_what_fits_is_run_once():
    function = Limited(7)
    run_halving(function, BATCH)
    assert function.sizes == [7]


def test_the_cpus_lack_of_memory_counts_too():
    error = RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    )
    assert torch.equal(run_halving(Limited(2, error), BATCH), 2 * BATCH)


def test_one_item_that_does_not_fit_is_an_error_that_names_its_size():
    function = Limited(0)
    with pytest.raises(ComputeError, match=r"not enough memory.*2 x 3"):
        run_halving(function, BATCH)
    assert function.sizes == [7, 3, 1]


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("no"), KeyError("k")])
def test_any_other_error_passes_through_at_once(error):
    function = Limited(2, error)
    with pytest.raises(type(error)) as caught:
        run_halving(function, BATCH)
    assert caught.value is error
    assert function.sizes == [7]
