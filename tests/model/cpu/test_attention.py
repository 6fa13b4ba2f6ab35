"""Attention by our own kernel: exact but for the products' rounding, a query for itself."""

from __future__ import annotations

import ctypes

import pytest
import torch
from hypothesis import given, settings, strategies as st

from auravae_cli.model.cpu import attention, compiled, native
from tests.model.cpu.test_native import attended, error

needed = pytest.mark.skipif(attention.kernel() is None, reason="no AVX-512 BF16 here")


def values(queries, cells, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(64, 1, n, generator=generator) for n in (queries, cells, cells)]


@needed
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 700))
def test_it_is_what_it_is_by_definition(queries, cells):
    q, k, v = values(queries, cells, queries + cells)
    weights = torch.softmax(q[:, 0].double().T @ k[:, 0].double() / 8, 1)
    found = attended(q, k, v, attention.kernel())
    assert error(found[:, 0], v[:, 0].double() @ weights.T) < 2e-2


@needed
def test_a_query_does_not_depend_on_others():
    q, k, v = values(21, 300)
    whole = attended(q, k, v, attention.kernel())
    cuts = ((0, 3), (3, 14), (14, 21))
    parts = [attended(q[..., a:b], k, v, attention.kernel()) for a, b in cuts]
    assert torch.equal(whole, torch.cat(parts, 2))


@needed
def test_scores_of_any_size_and_none():
    q, k, v = values(3, 300)
    found = attended(1e4 * q, k, v, attention.kernel())
    assert found.isfinite().all() and found.abs().max() <= v.abs().max() * 1.01
    k[5, 0, 77] = float("nan")
    assert attended(q, k, v, attention.kernel()).isnan().all()


def test_other_processors(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "_TUNED", ((),))
    path = compiled._build([compiled._compiler()], attention.SOURCE, tmp_path, "a")
    found = native.Attention(ctypes.CDLL(str(path)))
    assert not found.memory_size(1) and not attention.is_right(found)


@needed
def test_a_kernel_that_is_wrong_is_not_used(tmp_path):
    wrong = tmp_path / "attention.c"
    wrong.write_text(attention.SOURCE.read_text().replace("key + LANES, count", "key, count"))
    found = native.find(wrong, native.Attention, attention.is_right)
    assert found == "those that were built give wrong numbers"
