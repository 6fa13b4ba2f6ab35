"""Results whose names differ in case or form alone, where a file system takes them for one."""

from __future__ import annotations

import os
import threading
import unicodedata
from pathlib import Path

import pytest

from auravae_cli.operations.batches import done
from auravae_cli.operations.outputs import Job
from auravae_cli.operations.taken_names import TakenNames
from auravae_cli.operations.watch import Watcher, watch
from tests.cli.datasets import everything, picture, pictures, write_folder, write_tar

STORE = ("--layout", "shards", "-o", "store")


@pytest.fixture(params=["one", "two"])
def spellings(request, monkeypatch):
    """How many files `Photo` and `photo` are, whatever they are on this system."""

    def common(name):
        return unicodedata.normalize("NFC", name).casefold() if request.param == "one" else name

    def lexists(path):
        return common(Path(path).name) in (common(p.name) for p in Path(path).parent.iterdir())

    monkeypatch.setattr(os.path, "lexists", lexists)
    return request.param


@pytest.mark.parametrize("names", [("Photo", "photo"), ("Sub/a", "sub/a"), ("\u00e9", "e\u0301")])
@pytest.mark.parametrize("command", ["encode", "decode", "flip", "roundtrip", "export", "import"])
def test_neither_of_two_results_replaces_the_other(
    auravae, work, latent, spellings, command, names
):
    suffix = ".png" if command in ("encode", "roundtrip") else ".safetensors"
    content = picture(1) if suffix == ".png" else latent.read_bytes()
    write_folder(work / "in", {f"{name}{suffix}": content for name in (*names, "other")})
    more = {
        "flip": ["-H"],
        "export": ["--to", "npy"],
        "import": ["--from", "safetensors", "--layout", "files"],
    }
    result = auravae(command, "in", "-o", "out", *more.get(command, []))
    assert (result.code == 1) == (spellings == "one")
    done_ = [path for path in Path("out").rglob("*.*") if path.is_file()]
    assert len(done_) == (3 if spellings == "two" else 2 if command[2:] == "port" else 1)
    if spellings == "one":
        assert "are one file there" in result.message or "is called" in result.message
    assert "other" in {path.stem for path in done_}


def test_beside_the_inputs_too(auravae, work, spellings):
    write_folder(work, {"Photo.png": picture(1), "photo.jpg": picture(2, file_format="JPEG")})
    result = auravae("encode", "Photo.png", "photo.jpg")
    assert (result.code == 1) == (spellings == "one")
    assert len(list(work.glob("*.safetensors"))) == (0 if spellings == "one" else 2)


@pytest.mark.parametrize("more", [[], ["--shard-index", "0", "--num-shards", "2"]])
def test_tars_of_such_names_do_not_undo_each_other(auravae, work, spellings, more):
    for n, name in enumerate(("Part", "part", "sub/x")):
        write_tar(work / "in" / f"{name}.tar", pictures(1, n))
    result = auravae("encode", "in", *STORE, *more)
    if spellings == "two":
        assert result.code == 0
        return
    assert result.code == 1
    assert "shards 'Part' and 'part' are one in store" in result.message
    assert not Path("store").exists()


def test_a_tar_is_not_taken_for_the_one_that_is_there(auravae, work, spellings):
    for n, name in enumerate(("Part", "part")):
        write_tar(work / "in" / f"{name}.tar", pictures(1, n))
    assert auravae("encode", "in/Part.tar", *STORE).code == 0
    before = everything(work / "store")
    result = auravae("encode", "in/part.tar", *STORE)
    assert (result.code == 1) == (spellings == "one")
    if spellings == "one":
        assert everything(work / "store") == before
    assert auravae("verify", "store").code == 0


def test_a_store_from_where_they_are_two_is_not_flipped_here(auravae, work, make_store, spellings):
    store = make_store(shards={"a": {(2, 3): 1}, "A": {(2, 3): 1}}, failures={})
    result = auravae("flip", store, "-H", "-o", "out")
    assert (result.code == 1) == (spellings == "one")
    assert Path("out").exists() == (spellings == "two")


def test_a_watched_folder_too(work, spellings):
    for name in ("Photo.png", "photo.jpg"):
        Path(name).write_bytes(b"")
        os.utime(name, (1, 1))
    stop = threading.Event()

    def encode(jobs):
        yield from map(done, jobs)
        stop.set()

    watcher = Watcher([str(work)], frozenset([".png", ".jpg"]), frozenset())
    outcomes = watch(
        watcher,
        lambda source: Job(source, source.path.with_suffix(".safetensors")),
        encode,
        stop,
        0.01,
    )
    statuses = sorted(outcome.status for outcome in outcomes)
    assert statuses == (["done", "failed"] if spellings == "one" else ["done", "done"])


NAMES = ["photo", "Photo", "PHOTO", "other", "\u00c9", "\u00e9", "e\u0301", "photo"]


def test_names_are_given_once(work, spellings):
    names = TakenNames(work)
    new = [name for name in NAMES if names.take(name)]
    assert new == (["photo", "other", "\u00c9"] if spellings == "one" else NAMES[:-1])
    names = TakenNames(work)
    new = [name for name in NAMES[1:] if names.take(name)]
    assert new == (["Photo", "other", "\u00c9"] if spellings == "one" else NAMES[1:])
