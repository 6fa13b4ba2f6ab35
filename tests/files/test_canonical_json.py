"""JSON is JSON both ways: whatever is read again gives the bytes it had, and NaN is nowhere."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import auravae_cli
from auravae_cli.files.canonical_json import canonical, read_json, write_json

PACKAGE = Path(auravae_cli.__file__).parent
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=2), inside, max_size=3)
    ),
    max_leaves=8,
)


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


@given(TREES)
def test_what_is_written_is_json(content: object) -> None:
    text = write_json(content)
    assert write_json(json.loads(text, parse_constant=refuse)) == text
    assert canonical(read_json(canonical(content))) == canonical(content)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_json_has_not_are_null(number: str) -> None:
    assert read_json(f'{{"a": [{number}, 1.5]}}') == {"a": [None, 1.5]}
    assert write_json({"a": [float(number), 1.5]}) == '{"a": [null, 1.5]}'


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 99_999, "[" + "1" * 5000 + "]", b"\xff", b'{"a": 1} 2']
)
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        read_json(text)


# Formats of others, written as their own programs write them: numbers and texts that have no NaN.
ALLOWED = {
    "files/canonical_json.py",
    "exchange/formats/aitoolkit.py",
    "exchange/formats/edm2.py",
    "exchange/formats/litdata.py",
    "exchange/formats/mds.py",
    "exchange/formats/repa_e.py",
    "exchange/formats/sana.py",
    "latents/record.py",
}


def test_nothing_else_reads_or_writes_json() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(alias.name == "json" for alias in node.names)
    }
    assert found == ALLOWED
