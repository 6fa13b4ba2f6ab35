"""Records in JSON: exact both ways, so that a row taken over gives the bytes of a fresh one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from auravae_cli.files.canonical_json import compact
from auravae_cli.latents.record import (
    Record,
    record_to_json,
    records_from_json,
    records_to_json,
    texts_of_records,
)
from auravae_cli.symmetry.geometry import Box, Padding
from auravae_cli.symmetry.group import GROUP

SIZES = st.tuples(st.integers(1, 99), st.integers(1, 99))
SIDES = st.one_of(st.integers(0, 50), st.floats(0, 50, allow_nan=False))
TREES = st.recursive(
    st.sampled_from([0, 1, 0.0, -0.0, 1.0, True, False, None, "", "ü\ud800"]),
    lambda inside: (
        st.lists(inside, max_size=2) | st.dictionaries(st.sampled_from("ab"), inside, max_size=2)
    ),
    max_leaves=3,
)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "caption": st.sampled_from(["", "ü\ud800"]),
        "label": st.sampled_from([0, 1, -1]),
        "metadata": TREES,
    },
)
BOXES = st.builds(
    lambda left, top, width, height: Box(left, top, left + width + 1, top + height + 1),
    *[SIDES] * 4,
)
RECORDS = st.builds(
    Record,
    image_size=SIZES,
    padding=st.builds(Padding, *[st.integers(0, 2)] * 4),
    orientation=st.sampled_from(GROUP),
    source=st.none() | st.text(max_size=2),
    exif_orientation=st.integers(1, 8),
    key=st.none() | st.text(min_size=1, max_size=2),
    source_size=st.none() | SIZES,
    source_box=st.none() | BOXES,
    annotations=TABLES,
)


def text(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


@given(RECORDS)
def test_one_comes_back_with_its_bytes(record: Record) -> None:
    content = record_to_json(record)
    (back,) = records_from_json(json.loads(text(content)), shard=False)
    assert back == record
    assert text(record_to_json(back)) == text(content)


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_many_come_back_with_their_bytes(records: list[Record]) -> None:
    content = records_to_json(tuple(records))
    back = records_from_json(json.loads(text(content)), shard=True)
    assert back == tuple(records)
    assert text(records_to_json(back)) == text(content)
    # == takes 1 for 1.0 and for true; what was annotated says which it was
    assert [text(r.annotations) for r in back] == [text(r.annotations) for r in records]
    fresh_and_back = (*records, *back)
    assert text(records_to_json(fresh_and_back)) == text(records_to_json((*records, *records)))


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_texts_of_many_are_those_of_each(records: list[Record]) -> None:
    own = {"a": range(len(records)), "z": ["ü"] * len(records)}
    texts = texts_of_records(tuple(records), {"b": 1.5}, own)
    each = [
        compact({"b": 1.5, "a": n, "z": "ü"} | record_to_json(record))
        for n, record in enumerate(records)
    ]
    assert list(texts) == each
    assert len(list(texts_of_records(tuple(records[:1] * 3), {}, {}))) == 3


def test_what_all_rows_share_stands_once() -> None:
    rows = [
        Record((8, 8), Padding(), key=str(n), annotations={"metadata": {"a": 1}}) for n in range(3)
    ]
    content = records_to_json(tuple(rows))
    assert content["annotations"] == {"metadata": {"a": 1}}
    assert content["rows"] == [{"key": "0"}, {"key": "1"}, {"key": "2"}]
    assert "source_box" not in content


def test_what_could_not_be_read_again_is_not_written():
    deep = json.loads("[" * 120 + "]" * 120)
    for field in ("annotations", "preparation"):
        record = Record((8, 8), Padding(), **{field: {"metadata": deep}})
        with pytest.raises(ValueError, match="nested too deeply: 101 levels"):
            record_to_json(record)
