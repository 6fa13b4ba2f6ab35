"""What claims too much costs itself: the others have their latents, and the message names a switch."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from auravae_cli.files.storage import LocalStorage
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.store.ledger import read_failures
from auravae_cli.store.manifest import read_manifest
from auravae_cli.store.reader import LatentStore
from tests.cli.datasets import everything, picture, rows, write_folder, write_tar

SHARDS = ["-m", "linear", "--layout", "shards", "-o", "store"]


def reasons(shard):
    return {f.key: f.reason for f in read_failures(LocalStorage(Path("store")), shard)}


def hole(path):
    """A file of a terabyte that takes no disk."""
    with Path(path).open("wb") as file:
        file.truncate(1 << 40)


def test_a_slip_in_a_variable_is_wrong_usage(auravae, work, monkeypatch):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BITES", "1G")
    result = auravae("info", "z.safetensors")
    assert result.code == 2
    assert "AURAVAE_MAX_FILE_BYTES" in result.message


@pytest.mark.parametrize("command", ["encode", "roundtrip", "show"])
def test_a_picture_with_a_hole(auravae, work, command):
    hole("a.png")
    result = auravae(command, "a.png", *(["-m", "linear"] if command != "show" else []))
    assert result.code == 1
    assert "raise it with AURAVAE_MAX_FILE_BYTES" in result.message


@pytest.mark.parametrize("command", ["decode", "info", "flip"])
def test_a_latent_with_a_hole(auravae, work, command):
    hole("z.safetensors")
    result = auravae(command, "z.safetensors", *(["-H"] if command == "flip" else []))
    assert result.code == 1
    assert "z.safetensors" in result.message


def test_standard_input_without_end(auravae, work, monkeypatch):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "100")
    result = auravae("encode", "-", "-m", "linear", stdin=picture(1))
    assert result.code == 1
    assert "AURAVAE_MAX_FILE_BYTES" in result.message


@pytest.mark.parametrize(
    ("name", "variable"),
    [("b.png", "FILE_BYTES"), ("b.txt", "TEXT_BYTES"), ("b.json", "TEXT_BYTES")],
)
def test_files_of_a_store_with_a_hole(auravae, work, name, variable):
    write_folder(Path("photos"), {"a.png": picture(1), "b.png": picture(2), "c.png": picture(3)})
    hole(Path("photos", name))
    result = auravae("encode", "photos", *SHARDS)
    assert result.code == 1
    expected = ["a", "c"] if variable == "FILE_BYTES" else ["a", "b", "c"]  # b without a caption
    assert sorted(rows(Path("store"))) == expected
    assert list(reasons("files-00000")) == ["b"]
    assert f"{name}: {1 << 40} bytes" in reasons("files-00000")["b"]
    assert f"AURAVAE_MAX_{variable}" in reasons("files-00000")["b"]
    assert auravae("verify", "store").code == 0


def test_what_stands_behind_the_end_of_a_tar_is_not_read_without_end(auravae, work):
    write_tar(Path("x.tar"), {"a.png": picture(1)})
    with Path("x.tar").open("r+b") as file:
        file.truncate(1 << 40)
    assert auravae("encode", "x.tar", *SHARDS).code == 1
    assert sorted(rows(Path("store"))) == ["a"]
    assert "behind the end of the tar" in reasons("x")[None]


@pytest.mark.parametrize("name", ["z.safetensors", "z.npy", "z.npz", "z.pt"])
def test_a_foreign_file_with_a_hole(auravae, work, name):
    """Neither read nor hashed."""
    form = name.partition(".")[2]
    np.save("a.npy", np.zeros((16, 2, 2), np.float16))
    np.savez("a.npz", latent=np.zeros((16, 2, 2), np.float16))
    if form in ("safetensors", "pt"):
        assert (
            auravae("encode", "-", "-m", "linear", "-o", "a.safetensors", stdin=picture(1)).code
            == 0
        )
        assert auravae("export", "a.safetensors", "--to", form, "-o", "in").code == 0
    else:
        Path("in").mkdir()
        Path(f"a.{form}").rename(f"in/a.{form}")
    hole(f"in/{name}")
    result = auravae("import", "in", "--from", form, "--assume-model", "linear", *SHARDS[2:])
    assert result.code == 1
    assert len(rows(Path("store"))) == 1
    assert list(reasons("files-00000")) == [name]


def test_a_latent_of_more_than_a_file(auravae, work):
    """A sound header of a latent that would be a hundred gigabytes of zeros."""
    shape = (16, 60_000, 60_000)
    metadata = {
        **{"format_version": 1, "tool_version": "0", "model": "linear", "weights_sha256": "0"},
        **{"downsampling_factor": 8, "representation": "12xee+2xoe+2xeo", "clamp": 1.0},
        **{"image_size": [480_000, 480_000], "orientation": "e", "source": None},
        **{"padding": dict.fromkeys(("left", "right", "top", "bottom"), 0), "preparation": {}},
        **{"source_sha256": None, "exif_orientation": 1},
    }
    header = safetensors_file.header_bytes(
        {"latent": (FLOAT16, shape)}, {"auravae": json.dumps(metadata)}
    )
    with Path("z.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2 * 16 * 60_000**2)
    for command in (["info"], ["decode"], ["flip", "-H"], ["export", "--to", "npz", "-o", "out"]):
        result = auravae(command[0], "z.safetensors", *command[1:])
        assert result.code == 1, command
        assert "AURAVAE_MAX_FILE_BYTES" in result.message


def test_a_list_with_a_hole(auravae, work):
    hole("list.txt")
    result = auravae("encode", "--files-from", "list.txt")
    assert result.code == 1
    assert "AURAVAE_MAX_FILE_BYTES" in result.message


@pytest.mark.parametrize("packed", [False, True])
def test_members_that_are_too_large(auravae, work, monkeypatch, packed):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "10K")
    monkeypatch.setenv("AURAVAE_MAX_TEXT_BYTES", "1K")
    members = [
        *(
            ("a.png", picture(1)),
            ("a.txt", b"a cat"),
            ("b.png", picture(2)),
            ("b.txt", bytes(1025)),
        ),
        *(("c.png", bytes(10_241)), ("d.png", picture(4))),
        *(("e.png", picture(5)), *((f"e.{n}.txt", bytes(1000)) for n in range(10))),
    ]
    path = write_tar(Path("x.tar"), members)
    if packed:
        path = Path("x.tar.gz")
        path.write_bytes(gzip.compress(Path("x.tar").read_bytes()))
    assert auravae("encode", path, *SHARDS).code == 1
    found = rows(Path("store"))
    assert sorted(found) == ["a", "b", "d", "e"]
    assert found["b"].records[0].annotations == found["e"].records[0].annotations == {}
    assert found["a"].records[0].annotations == {"caption": "a cat"}
    told = reasons("x")
    assert sorted(told) == ["b", "c"]
    assert "b.txt: 1025 bytes of text: more than the limit of 1024" in told["b"]
    assert "AURAVAE_MAX_FILE_BYTES" in told["c"]


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_in_a_tar_that_are_too_large(auravae, work, monkeypatch, packed):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "20K")
    members = []
    for key, side in (("a", 16), ("b", 40), ("c", 16)):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((16, side, 16), np.float16))
        members.append((f"{key}.latent.npy", buffer.getvalue()))
    path = write_tar(Path("x.tar"), members)
    if packed:
        path = Path("x.tar.gz")
        path.write_bytes(gzip.compress(Path("x.tar").read_bytes()))
    result = auravae(
        *("import", path, "--from", "webdataset", "--assume-model", "linear", "-o", "store")
    )
    assert result.code == 1
    assert sorted(rows(Path("store"))) == ["a", "c"]
    assert "AURAVAE_MAX_FILE_BYTES" in reasons("x")["b"]


def test_a_dry_run_reads_headers_of_members_alone(auravae, work, monkeypatch):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "10K")
    write_tar(Path("x.tar"), [("a.png", picture(1)), ("b.png", bytes(10_241))])
    result = auravae("encode", "x.tar", *SHARDS, "--dry-run", "--json")
    assert result.row["details"]["pictures"] == 1
    assert result.row["details"]["unreadable"] == 1


def test_a_member_that_claims_to_be_endless(auravae, work):
    """A header alone, of a size that no disk has; what came before it is encoded."""
    header = tarfile.TarInfo("b.png")
    header.size = 1 << 70
    plain = write_tar(Path("x.tar"), {"a.png": picture(1)})
    content = plain.read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 512) + header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    plain.write_bytes(content)
    assert auravae("encode", "x.tar", *SHARDS).code == 1
    assert sorted(rows(Path("store"))) == ["a"]


@pytest.mark.parametrize("depth", [99, 100, 975, 1000, 100_000])
def test_metadata_nested_without_end(auravae, work, depth):
    """Each level is a table; with the one that holds the metadata, 100 are allowed."""
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    members = [("a.png", picture(1)), ("a.json", b"{}"), ("b.png", picture(2)), ("b.json", deep)]
    write_tar(Path("x.tar"), members)
    assert auravae("encode", "x.tar", *SHARDS).code == (depth > 99)
    found = rows(Path("store"))
    assert sorted(found) == ["a", "b"]
    assert ("metadata" in found["b"].records[0].annotations) == (depth < 100)
    assert auravae("encode", "x.tar", *SHARDS).code == (depth > 99)
    for command in (
        ["verify", "store"],
        ["info", "store"],
        ["flip", "store", "-H", "-o", "mirror"],
    ):
        assert auravae(*command).code == 0
    if depth > 99:
        assert "nested too deeply" in reasons("x")["b"]


def test_imported_metadata_nested_without_end(auravae, work):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((16, 2, 2), np.float16))
    members = [
        *(("a.latent.npy", buffer.getvalue()), ("a.json", b"[" * 99 + b"]" * 99)),
        *(("b.latent.npy", buffer.getvalue()), ("b.json", b"[" * 400 + b"]" * 400)),
    ]
    path = write_tar(Path("x.tar"), members)
    options = ["--from", "webdataset", "--assume-model", "linear", "-o", "store"]
    assert auravae("import", path, *options).code == 1
    assert sorted(rows(Path("store"))) == ["a"]
    assert "AURAVAE_MAX_JSON_DEPTH" in reasons("x")["b"]


@pytest.mark.parametrize("command", ["info", "flip", "decode"])
def test_a_million_channels_in_a_few_hundred_bytes(auravae, work, command):
    metadata = {
        **{"format_version": 1, "tool_version": "0", "model": "m", "weights_sha256": "0"},
        **{"downsampling_factor": 8, "representation": "+".join(["999999xee"] * 10)},
        **{"clamp": 1.0, "rows": []},
    }
    tensors = {"latents": (FLOAT16, (0, 9_999_990, 1, 1))}
    content = safetensors_file.header_bytes(tensors, {"auravae": json.dumps(metadata)})
    Path("z.safetensors").write_bytes(content)
    assert len(content) < 1000
    result = auravae(command, "z.safetensors", *(["-H"] if command == "flip" else []))
    assert result.code == 1
    assert "9999990 channels: more than the limit of 4096; raise it with" in result.message


# A header that no reader would take


@pytest.fixture
def small_headers(monkeypatch):
    """As if safetensors allowed no more than 6,400 bytes."""
    monkeypatch.setattr(safetensors_file, "MAX_HEADER_BYTES", 6400)


def described(count, length=500, start=0):
    """Pictures of two sizes, each with a table of that length beside it."""
    for n in range(start, start + count):
        yield f"{n:03d}.png", picture(n, height=16 + 8 * (n % 2))
        yield f"{n:03d}.json", json.dumps({"n": n, "text": "x" * length}).encode()


def test_a_shard_whose_header_would_be_too_long_is_in_parts(auravae, work, small_headers):
    write_tar(Path("x.tar"), described(40))
    assert auravae("encode", "x.tar", *SHARDS).code == 0
    names = [f"x.{cells}{part}" for cells in ("2x3", "3x3") for part in ("", ".1", ".2", ".3")]
    assert sorted(p.stem for p in Path("store").glob("*.safetensors")) == sorted(names)
    manifest = read_manifest(LocalStorage(Path("store")), "x")
    assert [output.name for output in manifest.outputs] == [f"{n}.safetensors" for n in names]
    store = LatentStore("store")
    records = [record for n in range(len(store.parts)) for record in store.records(n)]
    assert [r.key for r in records] == [f"{n:03d}" for first in (0, 1) for n in range(first, 40, 2)]
    assert all(r.annotations["metadata"]["n"] == int(r.key) for r in records)
    assert auravae("verify", "store").code == 0
    before = everything(Path("store"))
    again = auravae("encode", "x.tar", *SHARDS, "--json")
    assert (again.code, again.row["status"], everything(Path("store"))) == (0, "skipped", before)


def test_a_store_in_parts_is_gone_on_with(auravae, work, small_headers):
    """Fewer rows need fewer files: those that are left over go, as those of other shapes do."""
    write_tar(Path("x.tar"), described(40))
    assert auravae("encode", "x.tar", *SHARDS).code == 0
    write_tar(Path("x.tar"), described(30, start=4))
    result = auravae("encode", "x.tar", *SHARDS, "--json")
    assert (result.code, result.row["reused"]) == (0, 30)
    resumed = everything(Path("store"))
    shutil.rmtree("store")
    assert auravae("encode", "x.tar", *SHARDS).code == 0
    assert everything(Path("store")) == resumed
    assert auravae("verify", "store").code == 0


def test_a_store_in_parts_is_flipped_decoded_and_exported(auravae, work, small_headers):
    write_tar(Path("x.tar"), described(20))
    assert auravae("encode", "x.tar", *SHARDS).code == 0
    assert auravae("flip", "store", "-H", "-V", "-o", "mirror").code == 0
    assert auravae("verify", "mirror").code == 0
    assert auravae("flip", "mirror", "-H", "-V", "-o", "back").code == 0
    assert everything(Path("back")) == everything(Path("store"))
    assert auravae("decode", "store", "-o", "pictures").code == 0
    assert len(list(Path("pictures").iterdir())) == 20
    assert auravae("export", "store", "--to", "npz", "-o", "arrays").code == 0
    assert auravae("import", "arrays", "--from", "npz", *SHARDS[2:4], "-o", "again").code == 0
    assert sorted(rows(Path("again"))) == sorted(rows(Path("store")))
    assert len(list(Path("again").glob("*.2x3*.safetensors"))) > 1


def test_a_record_that_no_header_could_hold(auravae, work, small_headers):
    members = [*described(2), *described(1, length=7000, start=2), *described(2, start=3)]
    write_tar(Path("x.tar"), members)
    assert auravae("encode", "x.tar", *SHARDS).code == 1
    assert sorted(rows(Path("store"))) == ["000", "001", "003", "004"]
    assert "safetensors allows 6400" in reasons("x")["002"]
    assert auravae("verify", "store").code == 0


def test_a_latent_file_that_no_reader_would_take(auravae, work, monkeypatch):
    Path("a.png").write_bytes(picture(1))
    monkeypatch.setattr(safetensors_file, "MAX_HEADER_BYTES", 400)
    result = auravae("encode", "a.png", "-m", "linear")
    assert result.code == 1
    assert "safetensors allows 400" in result.message
    assert [path.name for path in Path().iterdir()] == ["a.png"]


# Names


@pytest.mark.parametrize("name", ["n" * 240, "é" * 115, "d/" + "n" * 227])
def test_a_tar_whose_name_leaves_no_room_for_its_results(auravae, work, name):
    for tar in (name, "a", "z"):
        write_tar(Path("tars", f"{tar}.tar"), {f"{tar[0]}.png": picture(1)})
    result = auravae("encode", "tars", *SHARDS)
    assert result.code == 1
    assert "names may have" in result.message
    assert sorted(rows(Path("store"))) == ["a", "z"]
    assert auravae("verify", "store").code == 0


def test_the_longest_name_that_there_is_room_for(auravae, work):
    write_tar(Path("n" * 226 + ".tar"), {"a.png": picture(1)})
    assert auravae("encode", "n" * 226 + ".tar", *SHARDS).code == 0
    assert len(rows(Path("store"))) == 1


def test_members_many_folders_deep(auravae, work):
    """A key is a text, however long; a place is not made of it."""
    deep = "d/" * 1500 + "b.png"
    write_tar(Path("x.tar"), [("a.png", picture(1)), (deep, picture(2)), ("c.png", picture(3))])
    assert auravae("encode", "x.tar", *SHARDS).code == 0
    assert len(rows(Path("store"))) == 3
    for command in (
        ["verify", "store"],
        ["info", "store"],
        ["flip", "store", "-H", "-o", "mirror"],
    ):
        assert auravae(*command).code == 0
    result = auravae("decode", "store", "-o", "pictures")
    assert result.code == 1
    assert "1500 folders, each in the other: more than the limit of 100" in result.message
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["a.png", "c.png"]
    result = auravae("export", "store", "--to", "npz", "-o", "arrays")
    assert result.code == 1
    assert sorted(path.name for path in Path("arrays").iterdir()) == ["a.npz", "c.npz"]


def test_files_many_folders_deep(auravae, work):
    write_folder(Path("photos"), {"a.png": picture(1), "d/" * 101 + "b.png": picture(2)})
    result = auravae("encode", "photos", "-m", "linear", "-o", "latents")
    assert result.code == 1
    assert "AURAVAE_MAX_FOLDER_DEPTH" in result.message
    assert [path.name for path in Path("latents").iterdir()] == ["a.safetensors"]
    assert auravae("encode", "photos", *SHARDS).code == 1
    assert list(rows(Path("store"))) == ["a"]
    assert "AURAVAE_MAX_FOLDER_DEPTH" in next(iter(reasons("files-00000").values()))
