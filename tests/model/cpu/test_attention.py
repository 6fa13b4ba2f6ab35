"""Attention by our own kernel: exact but for the products' rounding, a query for itself."""

from __future__ import annotations

import ctypes

import pytest
import torch
from hypothesis import given, settings, strategies as st

from auravae_cli.model.cpu import attention, compiled, native
from auravae_cli.model.network.layers import AttentionBlock

needed = pytest.mark.skipif(attention.kernel() is None, reason="no AVX-512 BF16 here")


def values(queries, cells, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = queries, cells, cells
    return [torch.randn(2, 3, count, 64, generator=generator) * 2 for count in counts]


@needed
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 700))
def test_it_is_what_it_is_by_definition(queries, cells):
    q, k, v = values(queries, cells, queries + cells)
    found = attention.kernel().attend(q, k.bfloat16(), v.bfloat16())
    weights = torch.softmax(q.double() @ k.double().transpose(2, 3) / 8, 3)
    expected = weights @ v.double()
    assert (found - expected).norm() < 2e-2 * expected.norm()


@needed
def test_a_query_does_not_depend_on_others():
    q, k, v = values(21, 300)
    kernel, k, v = attention.kernel(), k.bfloat16(), v.bfloat16()
    whole = kernel.attend(q, k, v)
    parts = [kernel.attend(q[:, :, a:b], k, v) for a, b in ((0, 3), (3, 14), (14, 21))]
    assert torch.equal(whole, torch.cat(parts, 2))


@needed
def test_scores_of_any_size_and_none():
    q, k, v = values(3, 300)
    kernel = attention.kernel()
    found = kernel.attend(1e4 * q, k.bfloat16(), v.bfloat16())
    assert found.isfinite().all() and found.abs().max() <= v.abs().max() * 1.01
    k[0, 0, 77, 5] = float("nan")
    found = kernel.attend(q, k.bfloat16(), v.bfloat16())
    assert found[0, 0].isnan().all() and found[0, 1:].isfinite().all()


def test_only_blocks_that_were_prepared_are_computed_so():
    assert attention.kernel_for(AttentionBlock(64), torch.zeros(1, 64, 8, 8)) is None


def test_other_processors(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "_TUNED", ((),))
    path = compiled._build([compiled._compiler()], attention.SOURCE, tmp_path, "a")
    found = attention.Kernel(ctypes.CDLL(str(path)))
    assert not found.queries and not attention.is_right(found)


@needed
def test_a_kernel_that_is_wrong_is_not_used(tmp_path):
    wrong = tmp_path / "attention.c"
    wrong.write_text(attention.SOURCE.read_text().replace("key + 1 < count ?", "0 ?"))
    found = native.find(wrong, attention.Kernel, attention.is_right)
    assert found == "those that were built give wrong numbers"
