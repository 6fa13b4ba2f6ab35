"""Plain data to declared types: whatever is wrong is named, by its place, and nothing else is raised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, strategies as st

from auravae_cli.files.typed import Faults, Natural, Positive, read_as, reader, table
from auravae_cli.store.ledger import Failure
from auravae_cli.store.manifest import Manifest
from auravae_cli.symmetry.group import GroupElement, H

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**70)
    | st.builds(lambda: 10**5000)
    | st.floats()
    | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "size", "parts", "x"]), inside, max_size=4)
    ),
    max_leaves=8,
)


@dataclass(frozen=True)
class Part:
    size: tuple[Positive, Positive]
    share: float = 0.5

    @property
    def faults(self) -> list[str]:
        return [] if self.share <= 1 else [f"share: expected at most 1, found {self.share}"]


@dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = ()
    count: Natural = 0
    g: GroupElement | None = None
    notes: dict[str, int | None] | None = None

    @property
    def faults(self) -> list[str]:
        return [] if self.name else ["name: expected a name"]


def test_sound_data() -> None:
    content = {
        "name": "a",
        "parts": [{"size": [1, 2]}, {"size": [3, 4], "share": 1}],
        "g": "h",
        "notes": {"b": 3, "c": None},
    }
    parts = (Part((1, 2)), Part((3, 4), 1.0))
    assert read_as(Whole, content) == Whole("a", parts, 0, H, {"b": 3, "c": None})
    assert type(read_as(Whole, content).parts[1].share) is float


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ([], ["expected a table, found []"]),
        ({}, ["missing name"]),
        ({"name": None}, ["name: expected str, found None"]),
        ({"name": "a", "x": 1}, ["x: unknown key"]),
        ({"name": "a", "count": True}, ["count: expected int, found True"]),
        ({"name": "a", "count": -1}, ["count: expected a number from 0, found -1"]),
        ({"name": "a", "count": 2**63}, ["count: expected a number of 64 bits, found 922"]),
        (
            {"name": "a", "count": -(10**5000)},
            ["count: expected a number from 0, found int of many"],
        ),
        ({"name": "a", "g": "x"}, ["g: 'x' is no element of the group"]),
        ({"name": "a", "g": 1}, ["g: expected str, found 1"]),
        ({"name": "a", "notes": {"b": 1.0}}, ["notes.b: expected int, found 1.0"]),
        ({"name": "a", "parts": {}}, ["parts: expected a list, found {}"]),
        ({"name": "a", "parts": [{"size": [1]}]}, ["parts[0].size: expected a list of 2, found"]),
        ({"name": "a", "parts": [{}]}, ["parts[0]: missing size"]),
        (
            {"name": 1, "parts": [{"size": [1, "2"], "share": float("nan")}]},
            [
                "name: expected str, found 1",
                "parts[0].size[1]: expected int, found '2'",
                "parts[0].share: expected a finite number, found nan",
            ],
        ),
        (
            {"name": "a", "parts": [{"size": [1, 2], "share": 10**400}]},
            ["parts[0].share: expected a"],
        ),
        (  # contradictions within a part do not hide those of the whole
            {"name": "", "parts": [{"size": [1, 2], "share": 2}]},
            ["parts[0].share: expected at most 1, found 2.0", "name: expected a name"],
        ),
    ],
)
def test_faults_name_the_field(content: Any, faults: list[str]) -> None:
    with pytest.raises(Faults) as caught:
        read_as(Whole, content)
    assert len(caught.value.lines) == len(faults)
    for found, expected in zip(caught.value.lines, faults, strict=True):
        assert found.startswith(expected)


def test_what_was_found_is_cut_where_it_is_long() -> None:
    with pytest.raises(Faults) as caught:
        read_as(Whole, {"name": ["x" * 10**6] * 1000})
    assert len(str(caught.value)) < 500


def test_tables_by_themselves() -> None:
    read = table({"a": int, "b": reader(tuple[int, ...])}, optional=["b"], others=True)
    assert read({"a": 1, "c": 2}) == {"a": 1}
    with pytest.raises(Faults, match=r"b\[1\]: expected int, found None; missing a"):
        read({"b": [1, None]})


@given(PLAIN)
def test_nothing_else_is_raised(content: Any) -> None:
    for kind in (Whole, Part, Manifest, Failure):
        try:
            read_as(kind, content)
        except Faults as error:
            assert str(error)
