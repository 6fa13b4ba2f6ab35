"""export and import of what is damaged, doubled or odd: it costs itself, and the message says what."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from auravae_cli import LatentDataset, read_latents
from auravae_cli.exchange import import_store
from auravae_cli.files import mapping

ASSUMED = ("--assume-model", "linear")


def values(seed=0, shape=(16, 4, 4), dtype=np.float32):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def reasons(result):
    rows = [row for row in result.rows if row.get("status") == "failed"]
    return {row.get("source") or row["shard"]: row["reason"] for row in rows}


@pytest.fixture
def make_latents(latent):
    """Latent files of these names in a folder, with these annotations."""

    def make(folder, names, **annotations):
        z = read_latents(Path(latent))
        for number, name in enumerate(names):
            record = replace(z.records[0], source=f"{name}.png", annotations=annotations)
            path = Path(folder, f"{name}.safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = replace(z, values=z.values + np.float16(number), records=(record,))
            path.write_bytes(changed.to_bytes())

    return make


def test_two_latents_of_one_place_never_become_one_file(auravae, make_latents):
    make_latents("lat", ["x", "000000/x"])
    result = auravae("export", "lat", "--to", "mar", "-o", "out", "--json")
    assert result.code == 1
    (reason,) = reasons(result).values()
    assert "another latent is called" in reason
    assert len(list(Path("out").rglob("*.npz"))) == 1


@pytest.mark.parametrize(("label", "names"), [(None, ["000001/x", "000002/x"]), (1234567, ["b"])])
def test_folders_of_classes_come_back(auravae, make_latents, label, names):
    make_latents("lat", names, **({} if label is None else {"label": label}))
    assert auravae("export", "lat", "--to", "mar", "-o", "out").code == 0
    assert auravae("import", "out", "--from", "mar", "-o", "back").code == 0
    found = {p.relative_to("back").as_posix() for p in Path("back").rglob("*.safetensors")}
    assert found == {f"{name}.safetensors" for name in names}


@pytest.mark.parametrize("layout", ["files", "shards"])
@pytest.mark.parametrize(("name", "one"), [("kohya", "a"), ("lightningdit", "000000")])
def test_latents_of_one_name_are_told_apart_by_their_files(
    auravae, make_latents, picture, name, one, layout
):
    """Two sizes of one picture; a latent and its flip."""
    make_latents("lat", ["a"])
    if name == "kohya":
        picture("big/a.png", 40, 48)
        auravae("encode", "big/a.png", "-o", "lat2")
    else:
        auravae("flip", "lat/a.safetensors", "-H", "-o", "lat2/a.h.safetensors")
    assert auravae("export", "lat", "lat2", "--to", name, "-o", "out").code == 0
    result = auravae("import", "out", "--from", name, "-o", "back", "--layout", layout)
    assert result.code == 0, result.err
    if layout == "shards":
        assert len(LatentDataset("back")) == 2
    else:
        assert len(list(Path("back").rglob("*.safetensors"))) == 2


@pytest.mark.parametrize("layout", ["files", "shards"])
@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.int8])
@pytest.mark.parametrize("name", ["npz", "kohya"])
def test_our_note_does_not_excuse_a_wrong_dtype(auravae, latent, name, dtype, layout):
    auravae("export", latent, "--to", name, "-o", "ex")
    (path,) = Path("ex").iterdir()
    with np.load(path) as arrays:
        content = {
            key: array.astype(dtype) if key.startswith("latent") else array
            for key, array in arrays.items()
        }
    np.savez(path, **content)
    result = auravae("import", "ex", "--from", name, "-o", "o", "--layout", layout)
    assert result.code == 1
    assert f"values are {np.dtype(dtype)}: expected one of float16" in result.err


def damaged_npy(path):
    path.write_bytes(path.read_bytes().replace(b"4), }", b"4   }"))  # an open bracket


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


FULL = values(shape=(32, 4, 4))
WRONG = {
    "npy header": ("npy", "a.npy", damaged_npy),
    "edm2 header": ("edm2", "a.npy", damaged_npy),
    "crop": ("kohya", "a.npz", npz(latents=values(), crop_ltrb=np.array([0, np.nan, 1, 1]))),
    "size": ("kohya", "a.npz", npz(latents=values(), original_size=np.array(["a", "b"]))),
    "moments": ("mar", "a.npz", npz(moments=np.full((32, 4, 4), "abc"))),
}


@pytest.mark.parametrize("layout", ["files", "shards"])
@pytest.mark.parametrize(("name", "file", "damage"), WRONG.values(), ids=list(WRONG))
def test_a_damaged_file_costs_itself(auravae, work, name, file, damage, layout):
    Path("in").mkdir()
    good, bad = Path("in", f"b{Path(file).suffix}"), Path("in", file)
    if file.endswith(".npy"):
        for path in (good, bad):
            np.save(path, FULL if name == "edm2" else values())
    else:
        np.savez(good, **({"moments": FULL} if name == "mar" else {"latents": values()}))
    damage(bad)
    result = auravae("import", "in", "--from", name, "-o", "o", "--layout", layout, *ASSUMED)
    assert result.code == 1
    assert "a" in result.err
    if layout == "shards":
        assert len(LatentDataset("o")) == 1
    else:
        assert [path.name for path in Path("o").iterdir()] == ["b.safetensors"]


@pytest.mark.parametrize("content", ["folder", '{"labels": [["b.npy", Infinity]]}'])
def test_a_damaged_table_of_labels_is_a_reason(auravae, work, content):
    Path("in").mkdir()
    np.save("in/b.npy", FULL)
    if content == "folder":
        Path("in/dataset.json").mkdir()
    else:
        Path("in/dataset.json").write_text(content)
    result = auravae("import", "in", "--from", "edm2", "-o", "o", "--json", *ASSUMED)
    assert result.code == 1
    assert set(reasons(result)) == {"in/b.npy"}


@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("layout", ["files", "shards"])
def test_a_bad_row_costs_itself_wherever_it_stands(auravae, work, layout, bad):
    z = values(shape=(5, 16, 4, 4))
    z[bad] = np.nan
    Path("ld").mkdir()
    save_file(
        {"latents": z, "latents_flip": z, "labels": np.arange(5)},
        "ld/latents_rank00_shard000.safetensors",
    )
    command = ("import", "ld", "--from", "lightningdit", "-o", "o", "--layout", layout, *ASSUMED)
    result = auravae(*command)
    assert result.code == 1
    assert f"latents_rank00_shard000/{bad:06d}" in result.err
    if layout == "shards":
        assert len(LatentDataset("o")) == 4
    else:
        assert len(list(Path("o").rglob("*.safetensors"))) == 4


@pytest.mark.parametrize("layout", ["files", "shards"])
@pytest.mark.parametrize(
    ("suffix", "content"), [(".cls", b"cat"), (".json", b'{"a": '), (".latent.npy", b"\x93NUMPY")]
)
def test_a_bad_sample_of_a_tar_costs_itself(auravae, work, suffix, content, layout):
    array = io.BytesIO()
    np.save(array, values())
    with tarfile.open("t.tar", "w") as archive:
        for key in "abcd":
            members = {".latent.npy": array.getvalue()} | ({suffix: content} if key == "b" else {})
            for end, data in members.items():
                member = tarfile.TarInfo(key + end)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    command = ("import", "t.tar", "--from", "webdataset", "-o", "o", "--layout", layout, *ASSUMED)
    result = auravae(*command)
    assert result.code == 1
    assert ("t.tar[b]" if layout == "files" else "t.tar: b: ") in result.err
    if layout == "shards":
        assert [
            row["key"] for row in map(LatentDataset("o", fields=("key",)).__getitem__, range(3))
        ]
        ledger = json.loads(Path("o/t.failures.jsonl").read_text())
        assert ledger["key"] == "b"
    else:
        assert {path.stem for path in Path("o").iterdir()} == {"a", "c", "d"}


@pytest.mark.parametrize(
    "options", [("--latent-dtype", "float16"), ("--latent-dtype", "float16", "--retry-failures")]
)
def test_failures_of_a_store_can_be_tried_again_as_the_reason_says(auravae, work, options):
    Path("in").mkdir()
    np.save("in/a.npy", values(dtype=np.float16))
    np.save("in/b.npy", values(1))
    command = ("import", "in", "--from", "npy", "-o", "st", "--layout", "shards", *ASSUMED)
    first = auravae(*command)
    assert first.code == 1
    assert "--latent-dtype" in first.err
    assert "--retry-failures tries them again" in first.err
    again = auravae(*command, *options)
    assert again.code == (0 if "--retry-failures" in options else 1)
    assert len(LatentDataset("st")) == (2 if "--retry-failures" in options else 1)


def test_retrying_is_for_stores(auravae, work):
    np.save("a.npy", values())
    result = auravae("import", "a.npy", "--from", "npy", "-o", "o", "--retry-failures", *ASSUMED)
    assert result.code == 2
    assert "--layout shards" in result.message


@pytest.mark.parametrize("name", ["lightningdit", "edm2"])
def test_an_export_of_nothing_leaves_no_index(auravae, latent, name):
    Path("bad").mkdir()
    Path("bad/x.safetensors").write_bytes(Path(latent).read_bytes()[:300])
    assert auravae("export", "bad", "--to", name, "-o", "o").code == 1
    assert not Path("o").exists()


def test_a_damaged_store_costs_itself(auravae, work, make_store):
    broken = make_store("broken")
    (broken / "store.json").write_text("{")
    result = auravae("export", broken, make_store(), "--to", "npz", "-o", "o", "--json")
    assert result.code == 1
    assert set(reasons(result)) == {str(broken)}
    assert len(list(Path("o").rglob("*.npz"))) == 15


@pytest.mark.parametrize("label", [2**63, 10**20])
def test_a_label_beyond_the_format_is_a_reason(auravae, make_latents, label):
    make_latents("lat", ["a"], label=label)
    result = auravae("export", "lat", "--to", "lightningdit", "-o", "o")
    assert result.code == 1
    assert f"annotations.label: expected a number of 64 bits, found {label}" in result.err


def test_a_box_without_end_is_a_damaged_header(auravae, latent):
    z = Path(latent).read_bytes()
    text = z[8 : 8 + int.from_bytes(z[:8], "little")].decode()
    header = text.replace('\\"source\\":', '\\"source_box\\":[0,0,Infinity,1],\\"source\\":')
    assert header != text
    Path("inf.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header.encode() + z[8 + len(text) :]
    )
    result = auravae("export", "inf.safetensors", "--to", "kohya", "-o", "o")
    assert result.code == 1
    assert "source_box[2]: expected float, found None" in result.err


@pytest.mark.parametrize(
    "command",
    [
        ("export", "z.safetensors", "--to", "npy"),
        ("import", "z.npy", "--from", "npy", "--layout", "files", "--assume-model", "linear"),
        ("flip", "z.safetensors", "-H"),
        ("decode", "z.safetensors"),
    ],
)
def test_a_remote_place_is_no_folder(auravae, latent, command):
    np.save("z.npy", values())
    result = auravae(*command, "-o", "s3://bucket/y")
    assert result.code == 2
    assert "only stores are written" in result.message or "expected a folder here" in result.message
    assert not Path("s3:").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what is mapped")
def test_rows_of_a_store_hold_on_to_no_file(auravae, work, monkeypatch):
    """Each map is a file descriptor, of which a process often has 256."""
    monkeypatch.setattr(import_store, "MOST_READ", 0)
    monkeypatch.setattr(mapping, "MOST_READ", 0)
    Path("in").mkdir()
    for number in range(20):
        np.save(f"in/{number}.npy", values(number))
    genuine, mapped = import_store.ShardWriter.commit, []

    def count(self, *arguments):
        mapped.append(Path("/proc/self/maps").read_text().count(".npy"))
        return genuine(self, *arguments)

    monkeypatch.setattr(import_store.ShardWriter, "commit", count)
    command = ("import", "in", "--from", "npy", "-o", "st", "--layout", "shards", *ASSUMED)
    assert auravae(*command).code == 0
    assert mapped[0] <= 1
    assert len(LatentDataset("st")) == 20


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_terminated_export_leaves_nothing_unfinished(program, work, make_store):
    store = make_store(shards={"a": {(64, 64): 3000}})
    command, environment = program
    process = subprocess.Popen(
        [*command, "export", str(store), "--to", "kohya", "-o", "out"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(Path("out").glob("**/*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        143,
        "terminated: finished work is kept; the same command continues from there\n",
    )
    assert not list(Path("out").rglob(".*"))
    for path in Path("out").rglob("*.npz"):
        with np.load(path) as arrays:
            assert arrays.files


def test_labels_are_found_from_the_inner_folder_too(auravae, work):
    Path("out/00000").mkdir(parents=True)
    np.save("out/00000/img-mean-std-00000003.npy", FULL)
    Path("out/dataset.json").write_text('{"labels": [["00000/img-mean-std-00000003.npy", 7]]}')
    for folder in ("out", "out/00000"):
        result = auravae("import", folder, "--from", "edm2", "-o", f"back/{folder}", *ASSUMED)
        assert result.code == 0
        (path,) = (p for p in Path("back", folder).rglob("*.safetensors") if "img" in p.name)
        assert read_latents(path).records[0].annotations == {"label": 7}


@pytest.mark.parametrize("layout", ["files", "shards"])
def test_the_same_weights_under_another_name_are_the_same_model(auravae, make_latents, layout):
    make_latents("lat", ["a", "b"])
    path = Path("lat/b.safetensors")
    z = read_latents(path)
    path.write_bytes(replace(z, space=replace(z.space, model="copy")).to_bytes())
    assert auravae("export", "lat", "--to", "npz", "-o", "out").code == 0
    command = ("import", "out", "--from", "npz", "-o", "back", "--layout", layout, *ASSUMED)
    assert auravae(*command).code == 0
    command = ("import", "out", "--from", "npz", "-o", "own", "--layout", layout)
    assert auravae(*command).code == 0
    if layout == "shards":
        assert auravae("verify", "own").code == auravae("verify", "back").code == 0
        assert len(LatentDataset("own")) == 2
    else:
        assert read_latents("back/b.safetensors").space.model == "linear"
