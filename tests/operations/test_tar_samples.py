"""Members of tars to samples: what belongs together is joined, what cannot be is a failure, by name."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from auravae_cli.operations.sample import Sample
from auravae_cli.operations.tar_samples import TarSamples, is_meta
from auravae_cli.store.ledger import Failure


def read(*members: tuple[str, str]) -> tuple[dict[str, tuple[str, object]], list[str], TarSamples]:
    """The samples by key (source and caption, late ones too), the failures' reasons, and the reader."""
    samples = TarSamples()
    items: list[Sample | Failure] = []
    for name, content in members:
        items += samples.add(name, content.encode())
    items += samples.finish()
    found = {
        item.key: (item.source, (item.annotations | samples.late.get(item.key, {})).get("caption"))
        for item in items
        if isinstance(item, Sample)
    }
    return found, [item.reason for item in items if isinstance(item, Failure)], samples


def pairs(keys: Iterable[str], suffix: str) -> list[tuple[str, str]]:
    return [(key + suffix, key) for key in keys]


TOGETHER = {"a": ("a.png", "a"), "b": ("b.png", "b")}


def test_members_side_by_side() -> None:
    found, failures, _ = read(("a.png", ""), ("a.txt", "a"), ("b.txt", "b"), ("b.png", ""))
    assert (found, failures) == (TOGETHER, [])


def test_captions_before_all_pictures_are_joined() -> None:
    found, failures, _ = read(*pairs("ab", ".txt"), *pairs("ab", ".png"))
    assert (found, failures) == (TOGETHER, [])


def test_captions_behind_all_pictures_are_joined() -> None:
    found, failures, _ = read(*pairs("ab", ".png"), *pairs("ab", ".txt"))
    assert (found, failures) == (TOGETHER, [])


def test_companions_on_both_sides_of_a_picture() -> None:
    members = [("a.json", '{"x": 1}'), ("b.png", ""), ("a.png", ""), ("b.txt", "b"), ("a.txt", "a")]
    found, failures, samples = read(*members)
    assert (found, failures) == (TOGETHER, [])
    assert samples.late == {"a": {"caption": "a"}, "b": {"caption": "b"}}


def test_what_stands_twice_side_by_side_is_a_failure() -> None:
    """The red picture had the caption "blue"."""
    found, failures, _ = read(("0.png", "r"), ("0.txt", "red"), ("0.png", "b"), ("0.txt", "blue"))
    assert found == {}
    assert failures == ["0.png: occurs twice; which belongs to which is unknown"]


def test_a_caption_that_comes_again_is_a_failure() -> None:
    found, failures, _ = read(("a.png", ""), ("a.txt", "a"), ("b.png", ""), ("a.TXT", "else"))
    assert found == {"a": ("a.png", "a"), "b": ("b.png", None)}
    assert failures == ["a.TXT: occurs twice"]


def test_a_late_companion_that_is_damaged_is_named() -> None:
    found, failures, _ = read(("a.png", ""), ("b.png", ""), ("a.json", "{"))
    assert set(found) == {"a", "b"}
    assert len(failures) == 1
    assert failures[0].startswith("a.json: a damaged companion")


def test_late_and_early_companions_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auravae_cli.operations.tar_samples._LATE_BYTES", 3)
    monkeypatch.setattr("auravae_cli.operations.tar_samples._WAITING_BYTES", 5)
    _, failures, _ = read(
        ("c.txt", "12345"), ("d.txt", "1"), ("a.png", ""), ("b.png", ""), ("a.txt", "1234")
    )
    assert failures == [
        "d.txt: too far before its picture",
        "a.txt: too long to be apart from its picture",
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_the_picture_under_the_plain_key_is_taken(order: int) -> None:
    members = [("a.depth.png", ""), ("a.jpg", ""), ("a.normal.PNG", ""), ("a.txt", "a")][::order]
    found, failures, samples = read(*members)
    assert found == {"a": ("a.jpg", "a")}
    assert failures == []
    assert samples.passed_over == {".depth.png": 1, ".normal.png": 1}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_plain_pictures_the_other_is_a_failure(order: int) -> None:
    found, failures, _ = read(*[("a.png", ""), ("a.jpg", ""), ("a.webp", "")][::order])
    assert found == {"a": ("a.jpg", None)}
    assert failures == [f"a.{kind}: another picture has this key" for kind in ("png", "webp")]


def test_a_picture_with_two_suffixes_may_be_the_only_one() -> None:
    found, failures, samples = read(("a.seg.png", ""), ("a.txt", "a"))
    assert (found, failures) == ({"a": ("a.seg.png", "a")}, [])
    assert not samples.passed_over


def test_a_folder_that_is_here_is_none_of_the_key() -> None:
    found, failures, _ = read(("./a.png", ""), ("a.txt", "a"), ("./b.png", ""), ("./b.txt", "b"))
    assert (found, failures) == (TOGETHER, [])


@pytest.mark.parametrize("name", ["__meta__", "__meta__/x.png", "__index__/a/b.png"])
def test_what_webdataset_passes_over(name: str) -> None:
    assert is_meta(name)
    assert not is_meta(f"a/{name}")
