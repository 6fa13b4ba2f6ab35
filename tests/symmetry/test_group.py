"""The group's laws over all of its elements, and how it acts on channels."""

from __future__ import annotations

from itertools import product

import pytest

from auravae_cli.symmetry.group import GROUP, HV, PARITIES, E, GroupElement, H, Irreps, V, character

MODEL = Irreps.parse("12xee+2xoe+2xeo")


def test_composition_is_associative() -> None:
    triples = list(product(GROUP, repeat=3))
    assert len(triples) == 64
    assert all((a @ b) @ c == a @ (b @ c) for a, b, c in triples)


def test_it_is_the_abelian_group_whose_elements_are_their_own_inverses() -> None:
    assert len(set(GROUP)) == 4
    for a, b in product(GROUP, repeat=2):
        assert a @ b in GROUP
        assert a @ b == b @ a
    for a in GROUP:
        assert a @ E == E @ a == a
        assert a @ ~a == ~a @ a == E
    assert H @ V == HV
    assert len({E, H, V, HV}) == 4


@pytest.mark.parametrize("g", GROUP)
def test_names_round_trip(g: GroupElement) -> None:
    assert GroupElement.parse(str(g)) == g
    assert eval(repr(g), {"GroupElement": GroupElement}) == g


def test_irreps_are_written_as_they_are_read():
    irreps = Irreps.parse("12xee+2xoe+2xeo")
    assert eval(repr(irreps), {"Irreps": Irreps}) == irreps and len(repr(irreps)) < 40


@pytest.mark.parametrize("name", ["", "H", "vh", "hh", "hvh", " h", "x"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected e, h, v or hv"):
        GroupElement.parse(name)


def test_axes_are_those_of_height_and_width() -> None:
    assert [g.axes for g in GROUP] == [(), (-1,), (-2,), (-2, -1)]


def test_characters_are_homomorphisms() -> None:
    for parity, a, b in product(PARITIES, GROUP, GROUP):
        assert character(parity, a @ b) == character(parity, a) * character(parity, b)


def test_character_table_is_that_of_the_klein_four_group() -> None:
    table = {parity: [character(parity, g) for g in (E, H, V, HV)] for parity in PARITIES}
    assert table == {
        "ee": [1, 1, 1, 1],
        "oe": [1, -1, 1, -1],
        "eo": [1, 1, -1, -1],
        "oo": [1, -1, -1, 1],
    }


def test_channels_that_each_element_negates() -> None:
    odd = {str(g): MODEL.odd_channels(g) for g in GROUP}
    assert odd == {"e": (), "h": (12, 13), "v": (14, 15), "hv": (12, 13, 14, 15)}


def test_signs_are_the_characters_in_channel_order() -> None:
    irreps = Irreps.parse("1xoo+2xee+1xeo")
    assert irreps.parities == ("oo", "ee", "ee", "eo")
    assert irreps.dim == 4
    assert irreps.signs(H) == (-1, 1, 1, 1)
    assert irreps.signs(V) == (-1, 1, 1, -1)
    assert irreps.signs(HV) == (1, 1, 1, -1)


@pytest.mark.parametrize("text", ["12xee+2xoe+2xeo", "1xoo", "3xeo+1xee+3xeo", "999999xee"])
def test_irreps_round_trip(text: str) -> None:
    irreps = Irreps.parse(text)
    assert str(irreps) == text
    assert Irreps.parse(str(irreps)) == irreps


@pytest.mark.parametrize(
    "text",
    ["", "ee", "0xee", "-1xee", "1xe", "1xeee", "1xab", "1xee+", "1xee 2xoe", "01xee", "1xee\n"]
    + ["1000000xee", "1.5xee"],
)
def test_malformed_irreps_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no irrep: expected a form such as 12xee or 2xoe"):
        Irreps.parse(text)
