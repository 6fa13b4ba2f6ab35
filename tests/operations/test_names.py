"""One resolver: files and stores find the same pictures, however they are named."""

from __future__ import annotations

import pytest

from auravae_cli.operations.inputs import collect
from auravae_cli.operations.names import resolve
from auravae_cli.operations.sources import find_files, is_picture
from auravae_cli.operations.suffixes import PICTURE_TAGS, PICTURES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures and captions, results beside them, a name with a wildcard, a hidden one."""
    names = [
        *("p/a.png", "p/a.txt", "p/a.roundtrip.png", "p/a.sheet.png", "p/b.jpg", "p/b.decoded.png"),
        *("p/sub/c.png", "p/sub/c.h.decoded.png", "p/sub/deep/d.png", "p/hero.sheet.png"),
        *("p/[x].png", "p/.hidden.png", "q/e.png", "q/e.roundtrip.png"),
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("p", "p/[x].png p/a.png p/b.jpg p/hero.sheet.png p/sub/c.png p/sub/deep/d.png"),
        ("{p/sub,q}", "p/sub/c.png p/sub/deep/d.png q/e.png"),
        ("p/*.png", "p/[x].png p/a.png p/hero.sheet.png"),
        ("p/*.roundtrip.png", "p/a.roundtrip.png"),
        ("p/{a.png,b.jpg}", "p/a.png p/b.jpg"),
        ("p/[x].png", "p/[x].png"),
        ("p/[ab].*", "p/a.png p/b.jpg"),
        ("p/**/*.png", "p/[x].png p/a.png p/hero.sheet.png p/sub/c.png p/sub/deep/d.png"),
        ("*/e.png", "q/e.png"),
        ("p/a.roundtrip.png", "p/a.roundtrip.png"),
    ],
)
def test_files_and_stores_find_the_same_pictures(folder, name, found):
    sources = collect([name], PICTURES, PICTURE_TAGS)
    pictures = [str(source.path) for source in sources if is_picture(str(source.path))]
    files = [f"{f.root}/{f.entry.name}".removeprefix("./") for f in find_files([name])]
    assert pictures == found.split()
    assert sorted(file for file in files if is_picture(file)) == found.split()


def test_a_pattern_is_looked_for_where_it_leads_alone(folder):
    (named,) = resolve(["p/*.png"])
    assert {file.name for file in named.list_local()} & {"sub/c.png", "sub/deep/d.png"} == set()
