"""Names that differ in case or form, and places that take them for one: tried out."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from auravae_cli.files.spelling import fold, lookalikes, tells_apart

COMPOSED, APART = "\u00e9", "e\u0301"


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Photo.png", "pHOTO.PNG", True),
        ("Sub/a", "sub/a", True),
        (COMPOSED, APART, True),
        (COMPOSED.upper(), APART, True),
        ("straße", "STRASSE", True),
        ("a", "b", False),
        ("a/b", "a_b", False),
        ("e", COMPOSED, False),
        ("a\udce9", "A\udce9", True),  # no text
    ],
)
def test_what_names_have_in_common(one, other, alike):
    assert (fold(one) == fold(other)) == alike
    assert lookalikes([one, other, one]) == ([[one, other]] if alike else [])


def test_lookalikes_come_in_groups():
    assert lookalikes(["a", "b", "A", "B", "a", "c"]) == [["a", "A"], ["b", "B"]]


@pytest.fixture
def simulated(monkeypatch):
    """A file system that takes names for one that are equal after some function."""

    def simulate(function):
        def lexists(path):
            return function(Path(path).name) in (
                function(p.name) for p in Path(path).parent.iterdir()
            )

        monkeypatch.setattr(os.path, "lexists", lexists)

    return simulate


def nfc(name):
    return unicodedata.normalize("NFC", name)


FILE_SYSTEMS = {
    "ext4": (lambda name: name, True),
    "exFAT": (str.casefold, False),
    "FAT": (lambda name: "".join(c.lower() if c.isascii() else c for c in name), False),
    "HFS+ with case": (nfc, False),
    "APFS": (lambda name: nfc(name).casefold(), False),
}


@pytest.mark.parametrize("system", FILE_SYSTEMS)
@pytest.mark.parametrize("folder", [".", "new", "new/deep"])
def test_a_place_is_tried_out(tmp_path, simulated, system, folder):
    function, expected = FILE_SYSTEMS[system]
    simulated(function)
    assert tells_apart(tmp_path / folder) == expected
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_has_no_accents_is_tried_out_without(tmp_path, simulated, monkeypatch):
    genuine = os.open

    def ascii_only(path, *arguments, **options):
        if not os.fspath(path).isascii():
            raise OSError(22, "Invalid argument")
        return genuine(path, *arguments, **options)

    monkeypatch.setattr(os, "open", ascii_only)
    simulated(str.lower)
    assert not tells_apart(tmp_path)
    simulated(str)
    assert tells_apart(tmp_path)


def test_a_place_that_cannot_be_written_tells_them_apart(tmp_path, simulated, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    simulated(str.lower)
    monkeypatch.setattr(os, "open", refuse)
    assert tells_apart(tmp_path)
    assert tells_apart(Path("/no/such/place"))


def test_this_file_system(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / f"a{COMPOSED}").touch()
    same = any((tmp_path / "other" / name).exists() for name in (f"A{COMPOSED}", f"a{APART}"))
    assert tells_apart(tmp_path) != same
