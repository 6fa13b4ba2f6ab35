"""Stores in use: gone on with, changed sources, settings, failures, and shared work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from auravae_cli.errors import StoreError
from auravae_cli.files import storage
from auravae_cli.files.canonical_json import canonical
from auravae_cli.files.storage import LocalStorage, RemoteStorage
from auravae_cli.forecast import predict
from auravae_cli.operations import encode_shard
from auravae_cli.store import shard_writer as rows_module
from auravae_cli.store.settings import read_settings
from tests.cli.datasets import everything, picture, pictures, rows, write_folder, write_tar

SIZES = ["--shard-size", "4"]


@pytest.fixture
def encode(auravae, work):
    """Encode ``photos`` (or what is named) into a store, with ``--json``."""

    def run(*arguments, store="store", code=0, options=SIZES):
        sources = [a for a in arguments if not str(a).startswith("--")] or ["photos"]
        flags = [a for a in arguments if str(a).startswith("--")]
        result = auravae(
            "encode", *sources, "--layout", "shards", "-o", store, "--json", *options, *flags
        )
        assert result.code == code, result.err
        return result

    return run


@pytest.fixture
def undisturbed(encode):
    """The whole tree of a store made at once."""

    def make(*arguments, code=0, **options):
        shutil.rmtree("fresh", ignore_errors=True)
        encode(*arguments, store="fresh", code=code, **options)
        return everything(Path("fresh"))

    return make


def statuses(result):
    return [(row["status"], row["reused"]) for row in result.rows]


# Going on


def test_a_second_run_finds_everything_done(encode, work):
    write_folder(work / "photos", pictures(9))
    encode()
    before = {p: p.stat().st_mtime_ns for p in Path("store").rglob("*")}
    again = encode()
    assert statuses(again) == [("skipped", 0)] * 3
    assert sum(row["rows"] for row in again.rows) == 9
    assert all(row["rows"] > 0 for row in again.rows)
    assert before == {p: p.stat().st_mtime_ns for p in Path("store").glob("*")}


def test_a_picture_more_changes_one_shard_and_is_alone_encoded(encode, undisturbed, work):
    write_folder(work / "photos", pictures(9))
    encode()
    write_folder(work / "photos", {"new.png": picture(99)})
    again = encode()
    (changed,) = [row for row in again.rows if row["status"] == "done"]
    assert changed["reused"] == changed["rows"] - 1
    assert [row["status"] for row in again.rows].count("skipped") == 2
    assert everything(Path("store")) == undisturbed()


@pytest.mark.parametrize("options", [["--resize", "11"], ["--crop", "1,2,8,8"], ["--buckets=16:8"]])
def test_reused_rows_have_the_bytes_of_fresh_ones(encode, undisturbed, work, options):
    """Whole numbers of a box once came back from JSON as 0.0."""
    write_folder(
        work / "photos", pictures(5) | {"001.json": b'{"a": 1}', "002.json": b'{"a": 1.0}'}
    )
    encode(options=options)
    write_folder(work / "photos", {"new.png": picture(99)})
    assert statuses(encode(options=options)) == [("done", 5)]
    assert everything(Path("store")) == undisturbed(options=options)


def test_a_picture_less_a_changed_one_and_a_renamed_one(encode, undisturbed, work):
    write_folder(work / "photos", pictures(9))
    encode()
    Path("photos/003.png").unlink()
    Path("photos/004.png").write_bytes(picture(77, height=40))
    Path("photos/005.png").rename("photos/renamed.png")
    Path("photos/006.png").write_bytes(picture(6))  # the size and the content, at another time
    encode("--prune")
    assert sorted(rows(Path("store"))) == [
        *("000", "001", "002", "004", "006", "007", "008", "renamed")
    ]
    assert set(everything(Path("store"))) == set(undisturbed(options=["--shard-size", "3"]))


def test_a_shard_that_loses_all_its_pictures_is_emptied(encode, work):
    write_folder(work / "photos", pictures(9))
    encode()
    manifest = json.loads(Path("store/files-00001.manifest.json").read_bytes())
    for source in manifest["sources"]:
        Path("photos", source["name"]).unlink()
    encode("--prune")
    assert len(rows(Path("store"))) == 9 - len(manifest["sources"])
    assert len(rows(Path("store"), "files-00001.*")) == 0


def test_a_touched_source_is_hashed_and_found_the_same(encode, work):
    write_tar(work / "t.tar", pictures(3))
    encode("t.tar")
    os.utime("t.tar", (1, 1))
    assert statuses(encode("t.tar")) == [("skipped", 0)]


def test_a_changed_caption_is_taken_over_without_encoding(encode, undisturbed, work, monkeypatch):
    write_folder(work / "photos", pictures(3) | {"001.txt": b"old"})
    encode()
    Path("photos/001.txt").write_bytes(b"new words")
    assert statuses(encode()) == [("done", 3)]
    assert rows(Path("store"))["001"].records[0].annotations == {"caption": "new words"}
    assert everything(Path("store")) == undisturbed()


def test_a_changed_tar_is_done_again(encode, undisturbed, work):
    write_tar(work / "t.tar", pictures(4))
    encode("t.tar")
    write_tar(
        work / "t.tar", pictures(3) | {"003.png": picture(50, height=48), "004.png": picture(4)}
    )
    assert statuses(encode("t.tar")) == [("done", 3)]
    assert everything(Path("store")) == undisturbed("t.tar")  # the 24 high are gone with their file


def test_keys_do_not_depend_on_how_many_files_a_folder_has(encode, work):
    write_folder(work / "one", {"a.png": picture(1)})
    write_folder(work / "two", pictures(2))
    encode("one", "two")
    write_folder(work / "one", {"b.png": picture(2)})
    assert statuses(encode("one", "two")) == [("done", 3)]


@pytest.mark.parametrize("damage", ["cut", "gone", "lied", "junk", "ledger", "settings"])
def test_a_damaged_store_is_repaired(encode, undisturbed, work, damage):
    write_folder(work / "photos", pictures(4) | {"bad.png": b"x"})
    whole = undisturbed(code=1)
    encode(code=1)
    (output, *_) = sorted(Path("store").glob("*.safetensors"))
    (manifest,) = (p for p in Path("store").glob("*0.manifest.json"))
    (ledger,) = Path("store").glob("*.failures.jsonl")
    {
        "cut": lambda: output.write_bytes(output.read_bytes()[:-1]),
        "gone": output.unlink,
        "lied": lambda: manifest.write_bytes(
            canonical(json.loads(manifest.read_bytes()) | {"shard": "files-00001"})
        ),
        "settings": lambda: manifest.write_bytes(
            canonical(json.loads(manifest.read_bytes()) | {"settings_sha256": "0" * 64})
        ),
        "junk": lambda: manifest.write_bytes(b"{"),
        "ledger": ledger.unlink,
    }[damage]()
    encode(code=1)
    assert everything(Path("store")) == whole


def test_a_thousand_shapes_need_no_thousand_open_files(encode, work):
    resource = pytest.importorskip("resource")
    write_folder(work / "photos", {f"{n}.png": picture(n, 8 * n + 8, 8) for n in range(80)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 40, hard))
    try:
        encode(options=[])
        write_folder(work / "photos", {"new.png": picture(1)})
        assert statuses(encode(options=[])) == [("done", 80)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Settings


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--latent-dtype=float32"], "made with --latent-dtype float16"),
        (["--resize=16"], "made with no --resize, asked for --resize 16"),
        (["--pad=reflect"], "made with --pad edge, asked for --pad reflect"),
    ],
)
def test_other_settings_are_refused(encode, work, options, difference):
    write_folder(work / "photos", pictures(2))
    encode()
    before = everything(Path("store"))
    result = encode(*options, code=1)
    assert "holds latents of other settings" in result.err and difference in result.err
    assert everything(Path("store")) == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_automatic_is_the_number_format_that_the_store_has(
    encode, auravae, work, monkeypatch, dtype
):
    asked = []
    find = predict.find_setting
    monkeypatch.setattr(predict, "find_setting", lambda *a: asked.append(a[3]) or find(*a))
    write_folder(work / "photos", pictures(1))
    small = ["-m", "small"]
    encode(options=[*small, "--dtype", dtype])
    write_folder(work / "photos", pictures(2))
    auravae("encode", "photos", "-o", "store", "--layout", "shards", "--dry-run", *small)
    encode(options=small)
    assert asked == [dtype]
    assert read_settings(LocalStorage(Path("store"))).compute_dtype == dtype
    assert len(rows(Path("store"))) == 2


def test_a_number_format_that_no_network_computes_in_is_another_setting(encode, auravae, work):
    write_folder(work / "photos", pictures(1))
    small = ["-m", "small"]
    encode(options=[*small, "--dtype", "float32"])
    file = Path("store/store.json")
    file.write_text(file.read_text().replace('"float32"', '"float8"'))
    result = encode(options=small, code=1)
    assert "made with --dtype float8, asked for --dtype" in result.err
    dry = auravae("encode", "photos", "-o", "store", "--layout", "shards", "--dry-run")
    assert dry.code == 0


def test_a_dry_run_of_a_part_is_of_its_shards_alone(encode, auravae, work):
    write_folder(work / "photos", pictures(12))
    line = ["encode", "photos", "-o", "store", "--layout", "shards", "--shard-size", "2"]
    parts = [[*line, "--shard-index", str(i), "--num-shards", "2"] for i in (0, 1)]
    planned = [
        {row["source"] for row in auravae(*part, "--dry-run", "--json").rows if "source" in row}
        for part in parts
    ]
    for part, found in zip(parts, planned, strict=True):
        auravae(*part)
        assert len(rows(Path("store"))) == sum(map(len, planned[: parts.index(part) + 1]))
        assert 0 < len(found) < 12


def test_a_dry_run_needs_no_access_to_a_remote_store(auravae, work, monkeypatch):
    def read(self, name):
        raise StoreError(f"{self.root}/{name}: Unable to locate credentials")

    monkeypatch.setattr(RemoteStorage, "read", read)
    write_folder(work / "photos", pictures(1))
    assert auravae("encode", "photos", "-o", "memory://bucket/store", "--dry-run").code == 0


def test_a_renamed_checkpoint_is_the_same_model(encode, undisturbed, work, repository):
    shutil.copy(repository / "auravae_cli/weights/linear.safetensors", "mine.safetensors")
    write_folder(work / "photos", pictures(3))
    encode()
    write_folder(work / "photos", {"new.png": picture(99)})
    assert statuses(encode("--model=mine.safetensors")) == [("done", 3)]
    assert everything(Path("store")) == undisturbed()  # also the name that rows have


def test_speed_is_no_setting(encode, undisturbed, work):
    write_folder(work / "photos", pictures(9))
    whole = undisturbed()
    for number, options in enumerate(
        (["--batch-size=1", "--workers=1"], ["--batch-size=5", "--workers=4"], ["--batch-size=64"])
    ):
        encode(*options, store=f"s{number}")
        assert everything(Path(f"s{number}")) == whole
        assert statuses(encode(*options, store=f"s{number}")) == [("skipped", 0)] * 3


def test_a_damaged_settings_file_is_an_error(encode, work):
    write_folder(work / "photos", pictures(2))
    encode()
    Path("store/store.json").write_bytes(b'{"format": "auravae-store"}')
    assert "store.json: no store that this auravae reads" in encode(code=1).err


@pytest.mark.parametrize(
    "arguments",
    [
        ["photos", "--layout", "shards"],
        ["photos", "--layout", "shards", "-o", "-"],
        ["photos", "--layout", "shards", "-o", "s", "--overwrite"],
        ["photos", "--layout", "shards", "-o", "s", "--max-failures", "many"],
        ["photos", "--layout", "shards", "-o", "s", "--max-failures", "101%"],
        ["photos", "--layout", "shards", "-o", "s", "--num-shards", "2", "--shard-index", "2"],
        ["--layout", "shards", "-o", "s"],
        ["-", "--layout", "shards", "-o", "s"],
    ],
    ids=lambda arguments: " ".join(arguments[-2:]),
)
def test_wrong_usage(auravae, work, arguments):
    write_folder(work / "photos", pictures(1))
    assert auravae("encode", *arguments).code == 2
    assert sorted(p.name for p in work.iterdir()) == ["photos"]


def test_an_unknown_scheme_or_a_bad_place_is_no_traceback(auravae, work):
    write_folder(work / "photos", pictures(1))
    result = auravae("encode", "photos", "-o", "nothing://x/y")
    assert (result.code, "no way to reach nothing://" in result.err) == (1, True)
    Path("file").write_bytes(b"")
    result = auravae("encode", "photos", "--layout", "shards", "-o", "file/store")
    assert result.code == 1 and "file/store" in result.err


# Failures

BAD = {"bad1.png": b"no picture", "bad2.png": picture(3)[:60], "huge.png": picture(4, 200, 200)}


def test_bad_pictures_are_set_aside_with_their_reasons(encode, work):
    write_folder(work / "photos", pictures(3) | BAD)
    result = encode("--max-pixels=2000", code=1, options=[])
    assert (result.row["rows"], result.row["failures"]) == (3, 3)
    lines = Path("store/files-00000.failures.jsonl").read_text().splitlines()
    ledger = [json.loads(line) for line in lines]
    assert [(f["key"], f["stage"]) for f in ledger] == [
        (k, "decode") for k in ("bad1", "bad2", "huge")
    ]
    assert (
        "--max-pixels" in ledger[2]["reason"] and "bad1.png: not a picture" in ledger[0]["reason"]
    )


def test_retrying_keeps_what_is_there(encode, undisturbed, work):
    write_folder(work / "photos", pictures(6) | BAD)
    encode("--max-pixels=2000", code=1)
    assert {row["status"] for row in encode("--max-pixels=2000", code=1).rows} == {"skipped"}
    retried = encode("--retry-failures", "--max-pixels=2000", code=1)
    assert sum(row["reused"] for row in retried.rows) == sum(
        row["rows"] for row in retried.rows if row["status"] == "done"
    )
    larger = encode("--retry-failures", code=1)
    assert sum(row["failures"] for row in larger.rows) == 2
    write_folder(work / "photos", {name: picture(len(name)) for name in ("bad1.png", "bad2.png")})
    encode("--retry-failures")
    assert everything(Path("store")) == undisturbed()
    assert not list(Path("store").glob("*.failures.jsonl"))


@pytest.mark.parametrize(("limit", "code"), [("0", 1), ("1", 1), ("2", 0), ("100%", 0), ("1%", 0)])
def test_a_number_of_failures_ends_the_run(auravae, work, limit, code):
    write_folder(work / "photos", {f"{name}.png": BAD["bad1.png"] for name in "ab"} | pictures(5))
    result = auravae(
        "encode", "photos", "--layout", "shards", "-o", "store", "--max-failures", limit
    )
    assert result.code == 1
    assert ("more than --max-failures allows" in result.err) == bool(code)
    assert Path("store/files-00000.manifest.json").exists() != bool(code)
    assert not list(Path("store").glob(".*"))


def test_a_share_of_failures_ends_the_run_once_it_means_anything(auravae, work):
    good, bad = picture(1, 8, 8), b"x"
    write_tar(work / "t.tar", [(f"{n:03d}.png", bad if n % 10 == 0 else good) for n in range(120)])
    for limit, ends in (("9%", True), ("10.5%", False)):
        result = auravae("encode", "t.tar", "-o", f"store{ends}", "--max-failures", limit, "-q")
        assert ("of 100 inputs failed" in result.err) == ends


def test_finished_shards_stay_where_a_run_is_given_up(encode, work):
    write_tar(work / "a.tar", pictures(3))
    write_tar(work / "b.tar", {"x.png": b"bad"})
    encode("a.tar", "b.tar", "--max-failures=0", code=1)
    assert sorted(p.name for p in Path("store").glob("*.manifest.json")) == ["a.manifest.json"]


def test_one_source_that_cannot_be_read_fails_its_shard_alone(encode, work, monkeypatch):
    for name in "abc":
        write_tar(work / f"{name}.tar", {f"{name}.png": picture(ord(name))})
    genuine = storage.LocalStorage.open

    def unreadable(self, name):
        if name == "b.tar":
            raise PermissionError(13, "Permission denied")
        return genuine(self, name)

    def told(self, name):
        with storage._told(self.path / name):
            return unreadable(self, name)

    monkeypatch.setattr(storage.LocalStorage, "open", told)
    result = encode("a.tar", "b.tar", "c.tar", code=1)
    assert sorted((r["shard"], r["status"]) for r in result.rows) == [
        *(("a", "done"), ("b", "failed"), ("c", "done"))
    ]
    os.utime("a.tar", (1, 1))  # is it the same? that cannot be told: one more failed shard
    monkeypatch.setattr(
        storage.LocalStorage, "open", lambda self, name: told(self, name.replace("a.tar", "b.tar"))
    )
    again = encode("a.tar", "c.tar", code=1)
    assert sorted((r["shard"], r["status"]) for r in again.rows) == [
        *(("a", "failed"), ("c", "skipped"))
    ]


def test_an_unreadable_picture_is_tried_again(encode, undisturbed, work, monkeypatch):
    write_folder(work / "photos", pictures(3))
    whole = undisturbed()
    genuine = storage.LocalStorage.read

    def unreadable(self, name):
        if name == "001.png":
            raise FileNotFoundError(name)
        return genuine(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(storage.LocalStorage, "read", unreadable)
        assert encode(code=1).row["failures"] == 1
    assert statuses(encode()) == [("done", 2)]
    assert everything(Path("store")) == whole


def test_memory_that_is_lacking_fails_one_picture(encode, work, monkeypatch):
    write_folder(work / "photos", pictures(3))
    genuine = encode_shard.read_image

    def read_image(content, **options):
        if content == pictures(3)["001.png"]:
            raise MemoryError
        return genuine(content, **options)

    monkeypatch.setattr(encode_shard, "read_image", read_image)
    assert encode(code=1).row["failures"] == 1
    assert "not enough memory" in Path("store/files-00000.failures.jsonl").read_text()


# Shared work


def test_jobs_share_the_work_and_make_the_same_store(encode, undisturbed, work):
    write_folder(work / "photos", pictures(9))
    for name in "ab":
        write_tar(work / "photos" / f"{name}.tar", pictures(2, start=20 + ord(name)))
    done = []
    for index in (2, 0, 1):
        result = encode(f"--shard-index={index}", "--num-shards=3")
        done += [row["shard"] for row in result.rows]
    assert len(done) == len(set(done)) == 5
    assert everything(Path("store")) == undisturbed()
    assert encode("--shard-index=7", "--num-shards=8").out == b""


@pytest.mark.parametrize("one", [["--num-shards", "2"], ["--shard-index", "0"]])
@pytest.mark.parametrize("layout", ["files", "shards"])
def test_a_job_says_which_of_how_many_it_is(auravae, work, one, layout):
    """One alone once encoded a part of the pictures, and said that all was done."""
    write_folder(work / "photos", pictures(3))
    result = auravae("encode", "photos", "-o", "out", "--layout", layout, *one)
    assert result.code == 2
    assert "job I of N jobs needs both" in result.message
    assert not Path("out").exists()


def test_jobs_share_loose_latents_too(auravae, work):
    write_folder(work / "photos", pictures(3))
    for index, count in enumerate([2, 1]):
        options = ["--shard-index", index, "--num-shards", "2", "--json"]
        assert len(auravae("encode", "photos", "-o", "out", *options).rows) == count
    assert len(list(Path("out").iterdir())) == 3


STORE_ONLY = [
    ["--shard-size", "1000"],
    ["--workers", "2"],
    ["--retry-failures"],
    ["--runner", "ray"],
    ["--address", "auto"],
]


@pytest.mark.parametrize("option", STORE_ONLY, ids=lambda option: option[0])
def test_options_of_stores_are_refused_for_loose_latents(auravae, work, option):
    write_folder(work / "photos", pictures(1))
    result = auravae("encode", "photos", "-o", "out", *option)
    assert result.code == 2
    assert option[0] in result.message and "--layout shards" in result.message
    assert auravae("encode", "--watch", "photos", "-o", "out", *option).code == 2
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("option", "needed"),
    [(["--address", "auto"], "--runner ray"), (["--interval", "1"], "--watch")],
)
def test_options_that_need_another_one_name_it(auravae, work, option, needed):
    write_folder(work / "photos", pictures(1))
    result = auravae("encode", "photos", "--layout", "shards", "-o", "store", *option)
    assert (result.code, needed in result.message) == (2, True)
    assert option[0] in result.message


def test_a_full_disk_ends_the_run_with_a_reason(encode, undisturbed, work, monkeypatch):
    write_folder(work / "photos", pictures(6))
    whole = undisturbed()
    genuine, calls = rows_module.RowSpool.finish, []

    def full(self, path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return genuine(self, path)

    monkeypatch.setattr(rows_module.RowSpool, "finish", full)
    assert "No space left on device" in encode(code=1).err
    assert not list(Path("store").glob(".*"))
    encode()
    assert everything(Path("store")) == whole


@pytest.mark.parametrize("limit", [0, 700])
def test_rows_that_go_to_the_disk_give_the_same_store(
    encode, undisturbed, work, monkeypatch, limit
):
    """More rows than are kept in memory, all of them or the first few."""
    write_folder(work / "photos", pictures(9))
    whole, written, genuine = undisturbed(), [], rows_module.RowSpool.write

    def write(self):
        written.append(self)
        genuine(self)

    monkeypatch.setattr(rows_module, "_WAITING_BYTES", limit)
    monkeypatch.setattr(rows_module.RowSpool, "write", write)
    encode()
    assert written
    assert everything(Path("store")) == whole


def test_rows_are_what_numpy_reads(encode, work):
    """The stacked file is a plain safetensors file: its rows are those of the index."""
    from safetensors.numpy import load_file

    write_tar(work / "t.tar", pictures(6))
    encode("t.tar")
    for path in Path("store").glob("*.safetensors"):
        values = load_file(path)["latents"]
        found = [z.values for z in rows(Path("store"), path.stem).values()]
        np.testing.assert_array_equal(values, np.stack(found))
