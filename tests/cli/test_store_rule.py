"""What a store holds is what was named: what runs add, replace, keep, drop and refuse."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from auravae_cli.operations.encode_store import encode_store
from auravae_cli.store.shard_writer import ShardWriter
from tests.cli.datasets import everything, picture, rows, write_folder, write_tar

STORE = ["-o", "store", "--layout", "shards"]
ONE = {"a1.png": picture(1), "a1.txt": b"first", "a2.png": picture(2, 24), "bad1.png": b"x"}
TWO = {"a0.png": picture(3), "b1.png": picture(4, 32), "bad2.png": b"y"}


@pytest.fixture
def folders(work):
    """Two folders, and one with all that is in them, of the same times."""
    for name, files in (("one", ONE), ("two", TWO), ("both", ONE | TWO)):
        for path in write_folder(work / name, files).iterdir():
            os.utime(path, (1, 1))
    return work


@pytest.fixture
def encode(auravae):
    """Encode what is named into ``store``."""

    def run(*arguments, code=0):
        result = auravae("encode", *arguments, *STORE)
        assert result.code == code, result.err
        return result

    return run


def test_a_second_folder_is_added_as_if_both_had_been_one(encode, auravae, folders):
    encode("one", code=1)
    result = encode("two", code=1)
    assert "4 latents, 2 failed  (2 kept)" in result.text
    assert "note: 2 latents not named now: kept; --prune drops" in result.err
    assert "failed: bad2.png" in result.err and "failed: bad1.png" not in result.err
    auravae("encode", "both", "-o", "fresh", "--layout", "shards")
    assert everything(Path("store")) == everything(Path("fresh"))
    before = {path: path.stat().st_mtime_ns for path in Path("store").iterdir()}
    for name in ("one", "two", "both", "one/a1.png"):  # each is there already
        assert "up to date" in encode(name, code=1).text
    assert before == {path: path.stat().st_mtime_ns for path in Path("store").iterdir()}


def test_what_has_changed_is_replaced_and_said(encode, folders):
    encode("one", code=1)
    write_folder(folders / "two", {"a2.png": picture(7, 24)})  # of the same name as one's
    assert "(1 kept, 1 replaced)" in encode("two", code=1).text
    found = rows(Path("store"))
    assert sorted(found) == ["a0", "a1", "a2", "b1"]
    encode("one/a2.png", "two/a0.png", code=1)
    assert rows(Path("store"))["a1"].records[0].annotations == {"caption": "first"}


def test_pruning_drops_what_is_not_named(encode, auravae, folders):
    encode("one", code=1)
    encode("two", code=1)
    assert "(2 dropped)" in encode("two", "--prune", code=1).text
    auravae("encode", "two", "-o", "fresh", "--layout", "shards")
    assert everything(Path("store")) == everything(Path("fresh"))
    write_tar(folders / "t.tar", {"t.png": picture(9)})
    encode("t.tar", "--prune")
    assert sorted(rows(Path("store"))) == ["t"]
    assert "sound" in auravae("verify", "store").text


def test_a_tar_that_is_gone_is_kept_until_pruned(encode, auravae, work):
    for name in ("x/000", "x/001"):
        write_tar(work / f"tars/{name}.tar", {f"{name[-1]}.png": picture(int(name[-1]))})
    encode("tars")
    Path("tars/x/000.tar").unlink()
    assert "note: 1 shard not named now: kept" in encode("tars").err
    result = encode("tars", "--prune")
    assert "x/000: dropped" in result.text and sorted(rows(Path("store"))) == ["1"]
    assert sorted(p.name for p in Path("store").rglob("*.*")) == [
        *("001.2x3.safetensors", "001.manifest.json", "store.json")
    ]
    assert "sound" in auravae("verify", "store").text


def test_nothing_is_dropped_where_a_shard_fails(encode, work, monkeypatch):
    write_tar(work / "old.tar", {"a.png": picture(1)})
    write_tar(work / "new.tar", {"b.png": picture(2)})
    encode("old.tar")
    name = "n" * 250
    write_tar(
        work / f"{name}.tar", {"c.png": picture(3)}
    )  # longer than the names of results may be
    encode("new.tar", f"{name}.tar", "--prune", code=1)
    assert sorted(rows(Path("store"))) == ["a", "b"]


def test_the_same_tar_by_another_name_is_refused(encode, work):
    write_tar(work / "tars/x/000.tar", {"a.png": picture(1)})
    write_tar(work / "tars/y/000.tar", {"b.png": picture(2)})  # only named alike
    encode("tars/x/*.tar")
    result = encode("tars/**/*.tar", code=1)
    assert "failed: x/000.tar: the store has this tar as shard '000'" in result.err
    assert sorted(rows(Path("store"))) == ["a", "b"]
    encode("tars/**/*.tar", "--prune")
    assert (
        sorted(rows(Path("store"))) == ["a", "b"] and not Path("store/000.manifest.json").exists()
    )


def test_a_shard_size_that_is_not_the_stores_is_refused(encode, work):
    write_folder(work / "p", {"0.png": picture(0)})
    encode("p", "--shard-size", "2")
    write_folder(work / "p", {f"{n}.png": picture(n, 8, 8) for n in range(4)})
    encode("p", "--shard-size", "2")  # about
    write_folder(work / "q", {"q.png": picture(1)})
    result = encode("q", "--shard-size", "2", code=2)
    assert (
        "store has 1 shards for loose pictures since it was made, now 5 pictures" in result.message
    )
    encode("q")
    Path("store").rename("other")
    encode("p", "--shard-size", "2")
    assert len(list(Path("store").glob("*.manifest.json"))) == 2
    encode("p", "--shard-size", "100", code=2)


@pytest.mark.parametrize("is_new", [True, False])
def test_damage_is_mended(encode, auravae, folders, is_new):
    encode("both", code=1)
    whole = everything(Path("store"))
    output = Path("store/files-00000.2x3.safetensors")
    content, time = bytearray(output.read_bytes()), output.stat().st_mtime_ns
    content[-5] ^= 1
    output.write_bytes(content)
    if not is_new:  # as where a disk fails, which leaves no trace
        os.utime(output, ns=(time, time))
        assert "up to date" in encode("both", code=1).text
    assert "its sha256 is not the manifest's" in auravae("verify", "store").err
    encode("both", *["--verify"] * (not is_new), code=1)
    assert everything(Path("store")) == whole


def test_a_damaged_latent_whose_picture_is_not_named_is_a_failure(encode, folders):
    encode("one", code=1)
    output = Path("store/files-00000.2x3.safetensors")
    output.write_bytes(output.read_bytes()[:-5] + b"12345")
    result = encode("two", code=1)
    assert "failed: a1.png: its latent is damaged; name the picture" in result.err
    assert sorted(rows(Path("store"))) == ["a0", "a2", "b1"]
    assert "failed: a1.png" not in encode("one", "--retry-failures", code=1).err
    assert sorted(rows(Path("store"))) == ["a0", "a1", "a2", "b1"]


@pytest.mark.parametrize("meanwhile", ["one", "two"])
def test_two_runs_side_by_side_lose_nothing(encode, folders, monkeypatch, meanwhile):
    genuine = ShardWriter.commit

    def commit(self, *arguments, **options):
        monkeypatch.setattr(ShardWriter, "commit", genuine)
        encode_store(meanwhile, "store", model="linear")
        return genuine(self, *arguments, **options)

    monkeypatch.setattr(ShardWriter, "commit", commit)
    result = encode("one", code=1)
    if meanwhile == "two":
        assert "another run changed this shard meanwhile" in result.err
        assert sorted(rows(Path("store"))) == ["a0", "b1"]
        encode("one", code=1)
    expected = ["a0", "a1", "a2", "b1"] if meanwhile == "two" else ["a1", "a2"]
    assert sorted(rows(Path("store"))) == expected


def test_imports_refuse_what_they_would_lose(encode, auravae, folders):
    encode("one", code=1)
    assert auravae("export", "store", "--to", "npz", "-o", "e").code == 0
    first, second = sorted(Path("e").rglob("*.npz"))
    into = ["--from", "npz", "--layout", "shards", "-o", "i"]
    assert auravae("import", first, *into).code == 0
    result = auravae("import", second, *into)
    assert result.code == 1 and "1 files that are not named now, such as a1.npz" in result.err
    assert auravae("import", first, second, *into).code == 0
    assert sorted(rows(Path("i"))) == ["a1", "a2"]


@pytest.mark.parametrize(
    ("options", "pictures", "failed"),
    [
        ([], {"a": 1, "b": 3}, "b.webp: another picture has this key"),
        (["--picture", "depth.png"], {"a": 2}, "b: none of its pictures is depth.png: .png, .webp"),
        (["--picture", "depth.png;WEBP"], {"a": 2, "b": 4}, ""),
    ],
)
def test_the_picture_of_a_sample_that_counts(encode, work, options, pictures, failed):
    names = ("a.jpg", "a.depth.png", "b.png", "b.webp")
    files = {name: picture(number) for number, name in enumerate(names, 1)}
    write_tar(work / "t.tar", files | {"b.txt": b"caption"})
    result = encode("t.tar", *options, code=bool(failed))
    found = {key: row.records[0].source_sha256 for key, row in rows(Path("store")).items()}
    assert found == {
        key: hashlib.sha256(picture(number)).hexdigest() for key, number in pictures.items()
    }
    assert failed in result.err and "passed over: 1 ." in result.err
    if options:  # another picture is another setting
        assert f"made with --picture {options[1].lower()}" in encode("t.tar", code=1).err
