"""encode into a store: what is named, what is found there, and what its rows hold."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from auravae_cli.files.storage import LocalStorage
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.store.ledger import read_failures
from auravae_cli.store.names import failures_name
from tests.cli.datasets import picture, pictures, rows, write_folder, write_tar

SHARDS = ["--layout", "shards", "-o", "store"]


@pytest.fixture
def keys(auravae, work):
    """Encode into a store; the keys of its rows."""

    def encode(*arguments, code=0):
        result = auravae("encode", *arguments, *SHARDS)
        assert (result.code, code and result.err) == (code, code and result.err), result.err
        return sorted(rows(Path("store")))

    return encode


def keys_of(path):
    return [record.key for record in read_latents(path).records]


def failures(shard):
    return [(f.key, f.stage) for f in read_failures(LocalStorage(Path("store")), shard)]


def test_rows_hold_what_the_single_files_give(auravae, work):
    write_folder(work / "photos", pictures(5) | {"sub/x.jpg": picture(9, file_format="JPEG")})
    options = ["--resize", "20", "--latent-dtype", "float32", "--pad", "reflect"]
    assert auravae("encode", "photos", *SHARDS, *options).code == 0
    found = rows(Path("store"))
    assert len(found) == 6
    for key, latent in found.items():
        (path,) = Path("photos").glob(f"{key}.*")
        assert auravae("encode", path, "-o", "z.safetensors", "--overwrite", *options).code == 0
        single = read_latents(Path("z.safetensors"))
        np.testing.assert_array_equal(latent.values, single.values)
        (record,), (expected,) = latent.records, single.records
        assert record.source == path.relative_to("photos").as_posix()
        for field in ("image_size", "padding", "source_sha256", "preparation", "source_box"):
            assert getattr(record, field) == getattr(expected, field)
        assert (latent.space, latent.dtype) == (single.space, single.dtype)


@pytest.mark.parametrize("listed", ["list.txt", "-"])
def test_tars_in_a_list_are_a_data_set(auravae, work, listed):
    """The layout once depended on the arguments alone, and each tar was no picture."""
    for name in "ab":
        write_tar(work / f"{name}.tar", {f"{name}.png": picture(1)})
    Path("list.txt").write_text("a.tar\nb.tar\n")
    stdin = Path("list.txt").read_bytes()
    result = auravae("encode", "--files-from", listed, "-o", "store", "--json", stdin=stdin)
    assert result.code == 0, result.err
    assert sorted(rows(Path("store"))) == ["a", "b"]


def test_a_tree_whatever_the_case_of_its_suffixes(work, keys):
    files = {"a.PNG": picture(1), "b/c.d.JPEG": picture(2, file_format="JPEG"), "b/e.png": b""}
    write_folder(work / "photos", files | {".hidden.png": b"", "notes.md": b"", "b/x.json": b"{"})
    assert keys("photos", code=1) == ["a", "b/c.d"]
    assert failures("files-00000") == [("b/e", "decode")]
    assert rows(Path("store"))["b/c.d"].records[0].source == "b/c.d.JPEG"


@pytest.mark.parametrize("in_tar", [False, True])
def test_companions(work, auravae, in_tar):
    files = {
        "1.jpg": picture(1),  # the content decides what it is
        "1.txt": "a cat ü\n".encode(),
        "1.cls": b"7",
        "1.json": b'{"a": [1, 2.5]}',
        "2.caption": b"second",
        "2.png": picture(2),
        "3.json": b"{",
        "3.png": picture(3),
        "4.cls": b"seven",
        "4.png": picture(4),
        "5.png": picture(5),
        "5.txt": b"\xff",
        "6.json": b"[" * 100_000,
        "6.png": picture(6),
        "7.png": picture(7),
        "8.txt": b"of no picture",
    }
    source = write_tar(work / "t.tar", files) if in_tar else write_folder(work / "t", files)
    result = auravae("encode", source, *SHARDS)
    assert result.code == 1
    for name, expected in (("3.json", "JSON"), ("4.cls", "an integer"), ("5.txt", "UTF-8 text")):
        assert f"failed: {name}: a damaged companion: expected {expected}: " in result.err
    assert "failed: 6.json: a damaged companion: expected JSON: nested" in result.err
    annotations = {
        key: latent.records[0].annotations for key, latent in rows(Path("store")).items()
    }
    assert annotations == {
        "1": {"caption": "a cat ü", "label": 7, "metadata": {"a": [1, 2.5]}},
        "2": {"caption": "second"},
        **{key: {} for key in "34567"},
    }
    assert failures("t" if in_tar else "files-00000") == [(k, "read") for k in "3456"]


def test_companions_follow_a_pattern(work, keys):
    files = {"a/1.png": picture(1), "a/2.jpg": picture(2), "a/b/c/3.png": picture(3)}
    write_folder(work / "p", files | {"a/1.txt": b"one", "ab.png": picture(4)})
    assert keys("p/a/*.png") == ["1"]
    assert rows(Path("store"))["1"].records[0].annotations == {"caption": "one"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.png", ["ab"]),
        ("p/*/*.png", ["a/1"]),
        ("p/**/*.png", ["a/1", "a/b/c/3", "ab"]),
        ("p/a/**/3.png", ["b/c/3"]),
        ("p/**/b.png", None),  # not ab.png
        ("p/?/[12].*", ["a/1", "a/2"]),
        ("p/**", ["a/1", "a/2", "a/b/c/3", "ab"]),
        ("p/{ab,a/2}.{png,jpg}", None),  # some of the four are not there
        ("p/a/{1.png,2.jpg}", ["1", "2"]),
    ],
)
def test_patterns_mean_what_a_shell_says(work, auravae, keys, pattern, expected):
    files = {"a/1.png": 1, "a/2.jpg": 2, "a/b/c/3.png": 3, "ab.png": 4}
    write_folder(work / "p", {name: picture(seed) for name, seed in files.items()})
    if expected is None:
        result = auravae("encode", pattern, *SHARDS)
        said = {2: "no pictures and no tars there", 1: "cannot be read: No such file"}
        assert said[1 if "{" in pattern else 2] in result.message
    else:
        assert keys(pattern) == expected


def test_a_folder_whose_name_looks_like_a_pattern(work, keys):
    write_folder(work / "p[1]{a,b}", {"x.png": picture(1)})
    assert keys("p[1]{a,b}") == ["x"]
    assert keys("p[1]{a,b}/x.png") == ["x"]


def test_several_folders_keep_apart(work, keys):
    write_folder(work / "one", {"x.png": picture(1)})
    write_folder(work / "two", {"x.png": picture(2), "y.png": picture(3)})
    assert keys("one", "two") == ["one/x", "two/x", "two/y"]


@pytest.mark.parametrize("arguments", [(".", "../other"), ("..", "."), ("one/..", "one")])
def test_no_name_leads_out_of_the_store(work, auravae, monkeypatch, arguments):
    write_folder(work / "here", {"x.png": picture(1), "one/z.png": picture(4)})
    write_tar(work / "here" / "t.tar", {"1.png": picture(2)})
    write_folder(work / "other", {"y.png": picture(3)})
    monkeypatch.chdir(work / "here")
    before = set(work.rglob("*"))
    result = auravae("encode", *arguments, "--layout", "shards", "-o", "../store")
    assert result.code == 0
    assert all(
        path.is_relative_to(work / "store") for path in work.rglob("*") if path not in before
    )
    keys = [key for path in (work / "store").rglob("*.safetensors") for key in keys_of(path)]
    assert keys and not any(key.startswith((".", "/")) for key in keys)


def test_the_same_file_named_twice_is_one(work, keys):
    write_folder(work / "p", {"x.png": picture(1)})
    assert keys("p/", "p/x.png", "./p/x.png") == ["x"]


def test_two_files_of_one_key_are_refused(work, auravae):
    write_folder(work / "a", {"x.png": picture(1)})
    write_folder(work / "b", {"x.png": picture(2)})
    result = auravae("encode", "a/x.png", "b/x.png", *SHARDS)
    assert result.code == 2
    assert "name the folder above them" in result.message
    assert not Path("store").exists()


def test_lists(work, auravae, keys):
    write_folder(work / "p", pictures(3))
    write_tar(work / "t.tar", {"in.png": picture(7)})
    Path("list.txt").write_text("p/000.png\n\n  p/002.png  \nt.tar\n")
    assert keys("--files-from", "list.txt") == ["000", "002", "in"]
    Path("missing.txt").write_text("p/000.png\np/nothing.png\n")
    assert auravae("encode", "--files-from", "missing.txt", *SHARDS).code == 1
    by_pipe = auravae(
        "encode", "--files-from", "-", "--layout", "shards", "-o", "piped", stdin=b"p/000.png\n"
    )
    assert by_pipe.code == 0
    assert list(rows(work / "piped")) == ["000"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *(("photo.doc", "known by their suffixes"), ("a.latent", "auravae import --from npy")),
        *((name, "No such file") for name in ("nothing.png", "no/such", "x" * 300)),
    ],
)
def test_what_is_no_input_is_said(work, auravae, name, said):
    Path("photo.doc").write_bytes(picture(1))
    Path("a.latent").write_bytes(b"\x93NUMPY\x01\0")
    result = auravae("encode", name, *SHARDS)
    assert result.code == 1 and said in result.message
    assert not Path("store").exists()


def test_names_that_are_no_text(work, keys):
    (work / "p").mkdir()
    Path(os.fsdecode(b"p/\xff.png")).write_bytes(picture(1))
    write_tar(Path(os.fsdecode(b"p/\xfe.tar")), {"\udcfd.png": picture(2)})
    assert keys("p") == ["\udcfd", "\udcff"]
    assert keys("p") == ["\udcfd", "\udcff"]


# Tars


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_a_tar_is_a_shard(work, keys, suffix):
    write_tar(work / f"00000{suffix}", pictures(4), "w" if suffix == ".tar" else "w:gz")
    assert keys(f"00000{suffix}") == ["000", "001", "002", "003"]
    assert Path("store/00000.manifest.json").exists()


def test_braces(work, keys):
    for number in (8, 9, 10):
        write_tar(work / f"{number:04d}.tar", pictures(1, start=number))
    assert keys("{0008..0010}.tar") == ["008", "009", "010"]
    assert sorted(p.name for p in Path("store").glob("*.manifest.json")) == [
        f"{number:04d}.manifest.json" for number in (8, 9, 10)
    ]


def test_rows_in_the_order_of_the_tar(work, keys):
    names = ["c", "a", "d", "b"]
    write_tar(work / "t.tar", [(f"{name}.png", picture(n)) for n, name in enumerate(names)])
    keys("t.tar")
    (output,) = Path("store").glob("*.safetensors")
    assert keys_of(output) == names


def test_keys_with_dots_folders_and_hidden_members(work, keys):
    members = {
        "./v1.0/a.png": picture(1),
        "v1.0/b.x.y.png": picture(2),
        "v1.0/._a.png": b"what a Mac leaves",
        ".DS_Store": b"",
        "v1.0/c.npy": b"nothing of ours",
        "v1.0/c.PNG": picture(3),
    }
    write_tar(work / "t.tar", members)
    assert keys("t.tar") == ["v1.0/a", "v1.0/b", "v1.0/c"]
    assert [z.records[0].source for z in rows(Path("store")).values()] == [
        "v1.0/a.png",
        "v1.0/b.x.y.png",
        "v1.0/c.PNG",
    ]


def test_a_key_stands_once(work, keys):
    members = [
        ("a.png", picture(1)),
        ("a.jpg", picture(2)),
        ("b.png", picture(3)),
        ("a.png", picture(4)),
    ]
    write_tar(work / "t.tar", members)
    assert keys("t.tar", code=1) == ["a", "b"]
    assert failures("t") == [("a", "read"), ("a", "read")]
    digest = hashlib.sha256(picture(2)).hexdigest()  # of the JPEG, which counts first
    assert rows(Path("store"))["a"].records[0].source_sha256 == digest


def test_an_empty_tar_is_a_finished_shard(work, auravae, keys):
    write_tar(work / "t.tar", {})
    assert keys("t.tar") == []
    assert "(up to date)" in auravae("encode", "t.tar", *SHARDS).text


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_no_cut_tar_passes_for_a_whole_one(work, auravae, kind):
    """Wherever it is cut, and above all between two members, where `tarfile` sees an end."""
    path = write_tar(work / "t.tar", pictures(3), kind)
    whole = path.read_bytes()
    end = len(whole) - 10 if kind == "w:gz" else len(whole.rstrip(b"\0"))
    places = range(0, end, 512) if kind == "w" else range(1, end, 197)
    for number, place in enumerate(places):
        path.write_bytes(whole[:place])
        store = f"store{number}"
        result = auravae("encode", path, "--layout", "shards", "-o", store, "--json")
        assert result.code == 1, place
        (failure,) = read_failures(LocalStorage(Path(store)), "t")
        assert (failure.key, failure.stage) == (None, "archive")
        assert "damaged or cut off" in failure.reason
        for key, latent in rows(Path(store)).items():
            assert (
                latent.records[0].source_sha256
                == hashlib.sha256(pictures(3)[f"{key}.png"]).hexdigest()
            )


def test_a_broken_header_in_the_middle_is_no_end(work, keys):
    path = write_tar(work / "t.tar", pictures(3))
    content = bytearray(path.read_bytes())
    content[content.index(b"001.png")] ^= 1
    path.write_bytes(content)
    assert keys("t.tar", code=1) == ["000"]
    assert failures("t") == [(None, "archive")]


def test_gzip_of_several_parts(work, keys):
    plain = write_tar(work / "t.tar", pictures(3)).read_bytes()
    Path("t.tar").unlink()
    Path("t.tgz").write_bytes(gzip.compress(plain[:3000]) + gzip.compress(plain[3000:]))
    assert keys("t.tgz") == ["000", "001", "002"]


def test_what_calls_itself_a_tar(work, keys):
    Path("t.tar").write_bytes(picture(1))
    assert keys("t.tar", code=1) == []
    assert failures("t") == [(None, "archive")]


def test_changed_bytes_of_a_tar_never_give_a_traceback(work, auravae):
    path = write_tar(work / "t.tar", pictures(3) | {"001.txt": b"x"})
    whole, random = path.read_bytes(), np.random.default_rng(0)
    headers = [n * 512 for n in range(len(whole) // 512) if whole[n * 512 + 257 :][:5] == b"ustar"]
    for number in range(25):
        content = bytearray(whole)
        for _ in range(3):
            content[random.choice(headers) + random.integers(512)] = random.integers(256)
        path.write_bytes(content)
        result = auravae("encode", path, "--layout", "shards", "-o", f"store{number}", "--quiet")
        assert result.code in (0, 1)


def test_tars_as_webdataset_writes_them(work, keys):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter("t.tar") as writer:
        for number in range(3):
            writer.write(
                {
                    "__key__": f"{number:06d}",
                    "png": picture(number),
                    "txt": f"caption {number}",
                    "json": {"n": number},
                    "cls": number,
                }
            )
    assert keys("t.tar") == ["000000", "000001", "000002"]
    assert rows(Path("store"))["000002"].records[0].annotations == {
        "caption": "caption 2",
        "label": 2,
        "metadata": {"n": 2},
    }


def test_tars_and_folders_together(work, auravae, keys):
    write_folder(work / "p", pictures(2) | {"more/t.tar": b""})
    write_tar(work / "p" / "more" / "t.tar", pictures(2, start=5))
    assert keys("p") == ["000", "001", "005", "006"]
    assert sorted(p.relative_to("store").as_posix() for p in Path("store").rglob("*.json")) == [
        "files-00000.manifest.json",
        "more/t.manifest.json",
        "store.json",
    ]


def test_tars_that_would_be_one_shard(work, auravae):
    write_tar(work / "t.tar", {})
    write_tar(work / "t.tgz", {}, "w:gz")
    assert "another tar makes shard 't'" in auravae("encode", "t.tar", "t.tgz", *SHARDS).message
    write_tar(work / "files-00000.tar", {})
    write_folder(work / "p", pictures(1))
    result = auravae("encode", "files-00000.tar", "p", *SHARDS)
    assert result.code == 2
    assert "a tar may not have this name" in result.message


def test_json_lines_and_quiet(work, auravae):
    write_tar(work / "a.tar", pictures(2) | {"bad.png": b"x"})
    write_tar(work / "b.tar", pictures(1))
    result = auravae("encode", "a.tar", "b.tar", *SHARDS, "--json")
    assert (result.code, result.err) == (1, "")
    for row, shard, count, bad in zip(result.rows, "ab", (2, 1), (1, 0), strict=True):
        assert row["seconds"] > 0 and row["size"] > 0
        assert row["source_size"] == Path(f"{shard}.tar").stat().st_size
        facts = {name: row[name] for name in ("shard", "status", "rows", "failures", "reused")}
        assert facts == {
            "shard": shard,
            "status": "done",
            "rows": count,
            "failures": bad,
            "reused": 0,
        }
    again = auravae("encode", "a.tar", "b.tar", *SHARDS, "--json")
    assert [row["status"] for row in again.rows] == ["skipped", "skipped"]
    assert again.code == 1  # inputs without a latent are no success, however often one looks
    Path("store/a.manifest.json").unlink()
    quiet = auravae("encode", "a.tar", "b.tar", *SHARDS, "--quiet")
    assert quiet.out == b"" and "failed: bad.png: " in quiet.err
    assert json.loads(Path("store", failures_name("a")).read_text())["key"] == "bad"


def test_numbers_that_json_has_not_are_null(auravae, work):
    content = b'{"similarity": NaN, "score": 1e999, "width": 5}'
    write_folder(work / "t", {"a.png": picture(1), "a.json": content})
    assert auravae("encode", "t", *SHARDS).code == 0
    (latent,) = rows(Path("store")).values()
    expected = {"similarity": None, "score": None, "width": 5}
    assert latent.records[0].annotations["metadata"] == expected
    auravae("export", "store", "--to", "webdataset", "-o", "w")
    with tarfile.open("w/000000.tar") as archive:
        text = archive.extractfile("a.json").read()
    assert json.loads(text, parse_constant=pytest.fail)["annotations"]["metadata"] == expected
