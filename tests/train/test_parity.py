"""The form of an equivariant convolution by parities, against the convolution itself, in float64."""

import torch
from hypothesis import given, settings, strategies as st
from torch.nn import functional as F

from auravae_cli.model.checkpoints.ties import Tie
from auravae_cli.train import parity


def combinations(x):
    """[B, 4 * C, H, W] => what each parity of a result is made of: [4, B, 9 * C, H, W]."""
    height, width = x.shape[2:]
    hadamard = torch.tensor(parity.HADAMARD, dtype=x.dtype)
    x = torch.einsum("pk,bkchw->pbchw", hadamard, x.unflatten(1, (4, -1)))
    padded = F.pad(x, (1, 1, 1, 1))

    def along(x, axis, length):
        before, middle, after = (x.narrow(axis, start, length) for start in range(3))
        return middle, before + after, after - before

    maps = [[along(rows, 3, width) for rows in along(p, 2, height)] for p in padded]
    return torch.stack(
        [torch.cat([maps[p][a][b] for p, a, b in slots], 1) for slots in parity.order()]
    )


def convolve(x, weights):
    """A convolution by its weights in the form of parities."""
    results = torch.einsum("qok,qbkhw->qbohw", weights, combinations(x))
    hadamard = torch.tensor(parity.HADAMARD, dtype=x.dtype)
    return torch.einsum("kq,qbohw->bkohw", hadamard, results).flatten(1, 2)


shapes = st.tuples(*(st.integers(1, 3) for _ in range(3)), st.integers(1, 5), st.integers(1, 5))


@settings(derandomize=True, deadline=None, max_examples=30)
@given(shape=shapes, seed=st.integers(0, 99))
def test_it_is_the_convolution_with_a_quarter_of_the_products(shape, seed):
    batch, channels, out, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    representatives = torch.randn(out, 4 * channels, 3, 3, generator=generator).double()
    x = torch.randn(batch, 4 * channels, height, width, generator=generator).double()
    weights = parity.from_representatives(representatives)
    assert weights.numel() == representatives.numel()
    expected = F.conv2d(x, Tie().expand(representatives), padding=1)
    torch.testing.assert_close(convolve(x, weights), expected)


def test_each_parity_takes_nine_combinations_and_none_is_taken_twice():
    found = [combination for slots in parity.order() for combination in slots]
    assert [len(slots) for slots in parity.order()] == [parity.SLOTS] * 4
    assert len(set(found)) == 36
