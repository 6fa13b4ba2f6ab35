"""The action on latents is the model card's formula, and a group action, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as npst

from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32, STORED_DTYPES, Array, StoredDtype
from auravae_cli.symmetry.action import act, act_into, act_on_base
from auravae_cli.symmetry.group import GROUP, E, GroupElement, H, Irreps

MODEL = Irreps.parse("12xee+2xoe+2xeo")
elements = st.sampled_from(GROUP)
shapes = st.one_of(
    st.tuples(st.just(16), st.integers(1, 4), st.integers(1, 5)),
    st.tuples(st.integers(1, 3), st.just(16), st.integers(1, 4), st.integers(1, 3)),
)
SPECIAL_WORDS = {  # NaNs with payloads, infinities, zeros and subnormals, of both signs
    2: [0x7E00, 0x7C01, 0xFDAB, 0x7C00, 0xFC00, 0x7F80, 0xFF80, 0x7FC1, 0x8000, 0x0000, 0x8001],
    4: [0x7FC00000, 0x7F800001, 0xFFABCDEF, 0x7F800000, 0xFF800000, 0x80000000, 0, 0x80000001],
}


@st.composite
def latents(draw: st.DrawFn) -> Array:
    """Every bit pattern of a stored type, [C, h, w] or [N, C, h, w]."""
    dtype = draw(st.sampled_from(list(STORED_DTYPES.values()))).numpy
    word = np.dtype(f"<u{dtype.itemsize}")
    values = st.one_of(
        st.sampled_from(SPECIAL_WORDS[dtype.itemsize]), st.integers(0, np.iinfo(word).max)
    )
    words = draw(npst.arrays(word, draw(shapes), elements=values, fill=st.nothing()))
    return words.view(dtype)


def same_bits(a: Array, b: Array) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def model_card(g: GroupElement, latent: Array) -> Array:
    """Flip the axis, then negate channels 12:14 (h) or 14:16 (v), on the values' sign bits."""
    z = latent.view(f"<u{latent.dtype.itemsize}").copy()
    sign = z.dtype.type(1 << (8 * z.dtype.itemsize - 1))
    if g.horizontal:
        z = np.flip(z, -1).copy()
        z[..., 12:14, :, :] ^= sign
    if g.vertical:
        z = np.flip(z, -2).copy()
        z[..., 14:16, :, :] ^= sign
    return z.view(latent.dtype)


@given(latents(), elements)
def test_it_is_the_formula_of_the_model_card(z: Array, g: GroupElement) -> None:
    before = z.copy()
    moved = act(g, z, MODEL)
    assert same_bits(moved, model_card(g, z))
    assert same_bits(z, before)
    assert not np.shares_memory(moved, z)


@given(latents())
def test_the_identity_changes_nothing(z: Array) -> None:
    assert same_bits(act(E, z, MODEL), z)


@given(latents(), elements, elements)
def test_acting_twice_is_acting_with_the_product(
    z: Array, g: GroupElement, h: GroupElement
) -> None:
    assert same_bits(act(g, act(h, z, MODEL), MODEL), act(g @ h, z, MODEL))


@given(latents(), elements)
def test_every_element_is_an_involution(z: Array, g: GroupElement) -> None:
    assert same_bits(act(g, act(g, z, MODEL), MODEL), z)


@pytest.mark.parametrize("g", GROUP)
def test_float_values_are_flipped_and_negated(g: GroupElement) -> None:
    z = np.random.default_rng(0).standard_normal((16, 3, 4)).astype(np.float32)
    signs = np.array(MODEL.signs(g), np.float32)[:, None, None]
    np.testing.assert_array_equal(act(g, z, MODEL), np.flip(z, g.axes) * signs)


@pytest.mark.parametrize("g", GROUP)
def test_bfloat16_words_act_like_the_values_they_stand_for(g: GroupElement) -> None:
    words = BFLOAT16.from_float32(np.linspace(-9, 9, 16 * 6, dtype=np.float32).reshape(16, 2, 3))
    moved = BFLOAT16.to_float32(act(g, words, MODEL))
    np.testing.assert_array_equal(moved, act(g, BFLOAT16.to_float32(words), MODEL))


@pytest.mark.parametrize("g", GROUP)
def test_other_representations_and_strided_views(g: GroupElement) -> None:
    irreps = Irreps.parse("1xoo+1xee+2xoe")
    z = np.random.default_rng(1).standard_normal((3, 4, 6, 8))[::2, :, ::-1, ::2]
    signs = np.array(irreps.signs(g))[:, None, None]
    np.testing.assert_array_equal(act(g, z, irreps), np.flip(z, g.axes) * signs)


def test_act_into_writes_every_value_of_its_target() -> None:
    z = np.ones((2, 16, 3, 3), np.float32)
    out = np.full_like(z, 7)
    act_into(out, H, z, MODEL)
    assert set(np.unique(out)) == {-1.0, 1.0}
    assert (out[:, 12:14] == -1).all()
    assert (out == -1).sum() == 2 * 2 * 9


@pytest.mark.parametrize("g", GROUP)
def test_the_base_alone_is_flipped_without_a_copy(g: GroupElement) -> None:
    picture = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    moved = act_on_base(g, picture)
    np.testing.assert_array_equal(moved, np.flip(picture, g.axes))
    assert np.shares_memory(moved, picture)


@pytest.mark.parametrize("shape", [(15, 2, 2), (17, 2, 2), (16, 2), (16,), (2, 4, 16, 16)])
def test_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a latent \[\.\.\., 16, h, w\]"):
        act(H, np.zeros(shape, np.float32), MODEL)


WORDS = np.arange(1 << 16, dtype=np.uint32)


def test_bfloat16_rounds_to_nearest_even() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001], np.uint32).view(np.float32)
    expected = [0x3F80, 0x3F82, 0x3F80, 0x3F81]
    assert BFLOAT16.from_float32(ties).tolist() == expected
    assert BFLOAT16.from_float32(-ties).tolist() == [word | 0x8000 for word in expected]


def test_bfloat16_reads_and_writes_all_of_its_words() -> None:
    values = BFLOAT16.to_float32(WORDS.astype(np.uint16))
    nan = np.isnan(values)
    back = BFLOAT16.from_float32(values)
    np.testing.assert_array_equal(back[~nan], WORDS[~nan])
    np.testing.assert_array_equal(back[nan], WORDS[nan] | 0x0040)
    assert np.isnan(BFLOAT16.to_float32(back[nan])).all()


def test_bfloat16_overflows_to_infinity_and_nan_stays_nan() -> None:
    high = np.array([3.4e38, -3.4e38], np.float32)
    assert BFLOAT16.to_float32(BFLOAT16.from_float32(high)).tolist() == [np.inf, -np.inf]
    quiet = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(BFLOAT16.to_float32(BFLOAT16.from_float32(quiet))).all()


@pytest.mark.parametrize("dtype", [FLOAT16, FLOAT32])
def test_numpy_formats_are_numpys_own_rounding(dtype: StoredDtype) -> None:
    values = np.array([1 / 3, 1e30, -0.0], np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(dtype.numpy)
    stored = dtype.from_float32(values)
    assert same_bits(stored, expected)
    np.testing.assert_array_equal(dtype.to_float32(stored), expected.astype(np.float32))
