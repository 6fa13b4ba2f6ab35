"""How long calls say how far they are."""

from __future__ import annotations

import pytest

from auravae_cli.machine.progress import follow
from auravae_cli.operations.encode_shard import RowDone
from auravae_cli.store.commit import ShardOutcome
from auravae_cli.store.progress import follow_shards


def test_the_beginning_and_every_step_are_told():
    told = []
    assert follow(iter("ab"), 2, lambda *step: told.append(step)) == ["a", "b"]
    assert told == [(None, 0, 2), ("a", 1, 2), ("b", 2, 2)]
    assert follow(iter("ab"), 2, None) == ["a", "b"]


def test_what_progress_raises_ends_the_call():
    left = iter("abc")

    def stop(step, done, total):
        if step == "a":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(left, 3, stop)
    assert list(left) == ["b", "c"]


def test_stores_tell_bytes_of_their_sources():
    first, second = (ShardOutcome(name, "done", source_size=100) for name in "ab")
    steps = [RowDone(30, None), RowDone(40, None), first, RowDone(120, None), second]
    told = []
    assert follow_shards(steps, 200, lambda step, *numbers: told.append(numbers)) == [first, second]
    assert told == [(0, 200), (30, 200), (70, 200), (100, 200), (200, 200), (200, 200)]
