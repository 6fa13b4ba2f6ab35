"""Every file below a folder, whatever links there are."""

from __future__ import annotations

import os
from itertools import permutations
from pathlib import Path

import pytest

from auravae_cli.files.walk import files_below


def raising(name, error):
    raise error


def names_below(folder, refused=raising):
    return sorted(files_below(str(folder), lambda name, entry: name, refused))


@pytest.fixture
def make(tmp_path):
    """Files and links, ``"a/b": "target"``, in a folder of its own."""

    def write(items):
        for name, target in items.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if target is None:
                path.write_bytes(b"")
            else:
                path.symlink_to(tmp_path / target)
        return tmp_path

    return write


def test_all_files_but_hidden_ones(make):
    home = make(dict.fromkeys(("a", "b/c", "b/d/e", ".f", "b/.g", ".h/i")))
    assert names_below(home) == ["a", "b/c", "b/d/e"]
    assert names_below(home / "b") == ["c", "d/e"]


def test_only_folders_that_are_wanted_are_looked_into(make):
    home = make(dict.fromkeys(("a", "b/c", "b/d/e", "f/g/h")))
    looked = []

    def enters(name):
        looked.append(name)
        return name in ("b", "f")

    found = files_below(str(home), lambda name, _: name, lambda name, _: name, enters)
    assert sorted(found) == ["a", "b/c"]
    assert sorted(looked) == ["b", "b/d", "f", "f/g"]


def test_a_name_as_the_system_gave_it(make, monkeypatch):
    monkeypatch.chdir(make({"a": None, "b/c": None}))
    assert names_below(".") == ["a", "b/c"]
    assert names_below("b/..") == ["a", "b/c"]


def test_links_are_followed_by_every_name(make):
    """Two names of a folder are two, where nothing leads round."""
    home = make({"home/a/1": None, "out/2": None, "home/b": "home/a", "home/c": "out"})
    assert names_below(home / "home") == ["a/1", "b/1", "c/2"]


@pytest.mark.parametrize("up", ["home", ".", "home/a", "home/a/b"])
def test_a_link_to_a_folder_that_it_lies_in_is_none(make, up):
    home = make({"home/a/b/1": None, "home/c": "home/a", "other": None, "home/a/b/up": up})
    assert names_below(home / "home") == ["a/b/1", "c/b/1"]


RINGS = {
    "two": {"x/toY": "y", "y/toX": "x"},
    "deep": {"x/deep/toY": "y", "y/deep/toX": "x"},
    "three": {"x/toY": "y", "y/toZ": "z", "z/toX": "x"},
    "all": {f"{one}/{other}": other for one, other in permutations("xyzuvw", 2)},
}


@pytest.mark.parametrize("links", RINGS.values(), ids=RINGS)
def test_a_ring_is_walked_once(make, links):
    folders = {name[0] for name in links}
    home = make({f"{folder}/picture": None for folder in folders} | links)
    assert names_below(home) == sorted(f"{folder}/picture" for folder in folders)
    found = names_below(home / "x")  # the others have no name of their own below it
    assert len(found) == len(folders)
    assert {Path(home / "x" / name).resolve() for name in found} == {
        home / folder / "picture" for folder in folders
    }


def test_a_ring_through_what_is_hidden(make):
    home = make({"a/1": None, ".h/2": None, "a/h": ".h", ".h/a": "a"})
    assert names_below(home) == ["a/1", "a/h/2"]


def test_a_ring_through_the_folder_above(make):
    home = make({"in/a/1": None, "in/2": None, "out/3": None, "in/a/out": "out", "out/in": "in"})
    assert names_below(home / "in" / "a") == ["1", "out/3", "out/in/2"]


def test_links_that_lead_nowhere_are_no_files(make):
    home = make({"a": None, "broken": "nothing", "loop": "loop", "one": "two", "two": "one"})
    assert names_below(home) == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_pipes_and_devices_are_no_files(make):
    home = make({"a": None, "zero": os.devnull})
    os.mkfifo(home / "pipe")
    (home / "link").symlink_to("pipe")
    assert names_below(home) == ["a"]


@pytest.mark.parametrize(("locked", "expected"), [("home/a", ["!a", "b/2"]), ("home", ["!"])])
def test_what_cannot_be_listed_is_told(make, monkeypatch, locked, expected):
    home, genuine = make({"home/a/1": None, "home/b/2": None}) / "home", os.scandir

    def refuse(folder):
        if Path(folder) == home.parent / locked:
            raise PermissionError(13, "Permission denied")
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names_below(home, lambda name, error: f"!{name}") == expected
    with pytest.raises(PermissionError):
        names_below(home)


def test_what_goes_away_meanwhile_is_left_out(make):
    home = make({"a": None, "b": None})

    def take(name, entry):
        (home / "b").unlink(missing_ok=True)
        return entry.stat() and name

    assert files_below(str(home), take, raising) in (["a"], [])
    assert files_below(str(home / "nothing"), take, raising) == []
