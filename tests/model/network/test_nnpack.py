"""The fast convolution of the CPU: where it runs, how far it errs, and what happens without it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from auravae_cli.model.network import nnpack, torch_threads
from auravae_cli.model.network.layers import conv3x3
from auravae_cli.model.network.nnpack import convolve_inner

FAST = "_nnpack_spatial_convolution"


@pytest.fixture
def calls(monkeypatch):
    """The shapes that went to NNPACK."""
    seen, genuine = [], getattr(torch, FAST)

    def watched(x, *arguments):
        seen.append(tuple(x.shape))
        return genuine(x, *arguments)

    nnpack.has_nnpack()  # its own trial is over
    monkeypatch.setattr(torch, FAST, watched)
    return seen


def direct(conv, x):
    padding = (0, 1)
    return F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=padding).float()


@pytest.mark.parametrize(
    "shape", [(1, 32, 8, 8), (1, 32, 11, 31), (2, 32, 40, 25), (1, 32, 64, 64)]
)
def test_it_errs_less_than_anybody_sees(shape, calls):
    if not nnpack.has_nnpack():
        pytest.skip("no NNPACK for this processor")
    torch.manual_seed(0)
    conv, x = conv3x3(32, 48), torch.randn(shape)
    with torch.inference_mode(), torch_threads.crew():
        for given in (x, x.to(memory_format=torch.channels_last), x[:, :, ::1].flip(2)):
            expected = direct(conv, given)
            assert (convolve_inner(conv, given) - expected).norm() < 2e-5 * expected.norm()
    assert len(calls) == 3 * torch.get_num_threads()  # which share the channels out


@pytest.mark.parametrize(
    ("widths", "x"),
    [
        ((32, 32), torch.zeros(1, 32, 7, 40)),
        ((32, 32), torch.zeros(0, 32, 16, 16)),
        ((3, 32), torch.zeros(1, 3, 16, 16)),
        ((8, 32), torch.zeros(1, 8, 16, 16)),
        ((32, 32), torch.zeros(1, 32, 16, 16, dtype=torch.bfloat16)),
        ((32, 32), torch.zeros(1, 32, 16, 16, dtype=torch.float64)),
    ],
    ids=["low", "empty", "from pixels", "few channels", "bfloat16", "float64"],
)
def test_other_features_take_the_plain_way(widths, x, calls):
    conv = conv3x3(*widths).to(x.dtype)
    with torch.inference_mode():
        found = convolve_inner(conv, x)
    assert found.shape == (x.shape[0], widths[1], x.shape[2] - 2, x.shape[3])
    assert calls == []


def test_gradients_take_the_plain_way(calls):
    conv, x = conv3x3(32, 32), torch.randn(1, 32, 16, 16, requires_grad=True)
    convolve_inner(conv, x).sum().backward()
    assert x.grad is not None and calls == []


@pytest.mark.parametrize("error", [RuntimeError("unsupported hardware"), AttributeError(FAST)])
def test_without_nnpack_all_take_the_plain_way(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(torch, FAST, fail)
    nnpack.has_nnpack.cache_clear()
    try:
        conv, x = conv3x3(32, 32), torch.randn(1, 32, 16, 16)
        with torch.inference_mode():
            torch.testing.assert_close(convolve_inner(conv, x), direct(conv, x))
        assert not nnpack.has_nnpack()
    finally:
        nnpack.has_nnpack.cache_clear()


def test_the_first_call_of_a_process_finds_it():
    """NNPACK has to be made ready, or every call fails."""
    import subprocess
    import sys

    code = "from auravae_cli.model.network.nnpack import has_nnpack; print(has_nnpack())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(torch._nnpack_available())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_crew_runs_each_task_once_and_alone(threads):
    """In inference mode, with one thread of torch's; the caller's number of threads stays."""
    given, done = torch.get_num_threads(), []

    def task():
        alone = torch.get_num_threads() == 1
        done.append((torch.is_inference_mode_enabled(), alone))

    with torch_threads.crew():
        torch_threads.run_all([task] * 20, threads)
    assert done == [(True, True)] * 20
    assert torch.get_num_threads() == given


def test_what_goes_wrong_in_a_crew_is_raised():
    def fail():
        raise RuntimeError("in a strip")

    with pytest.raises(RuntimeError, match="in a strip"):
        torch_threads.run_all([lambda: None, fail, lambda: None], 2)
