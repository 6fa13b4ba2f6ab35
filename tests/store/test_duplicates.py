"""Repeats: exactly the texts that occur more than once."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, strategies as st

from auravae_cli.store.duplicates import DuplicateFinder


@given(st.lists(st.lists(st.none() | st.text(max_size=2))))
def test_they_are_those_of_a_dict(parts):
    repeats, places = DuplicateFinder(), defaultdict(list)
    for part in parts:
        repeats.add(part)
    for place, text in enumerate(text for part in parts for text in part):
        if text is not None:
            places[text].append(place)
    expected = sorted(found for found in places.values() if len(found) > 1)
    assert list(repeats.groups()) == expected
