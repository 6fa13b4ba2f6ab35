"""import: latents of others become files or a store; ours come back as they were."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from safetensors.numpy import save_file

from auravae_cli import H, read_latents
from auravae_cli.model.spec.registry import find_weights

FORMATS = [
    *("comfyui", "kohya", "musubi", "ai-toolkit", "lightningdit", "mar", "webdataset"),
    *("npz", "safetensors"),
]

FORMATS_OF_KEYS = {"webdataset": ".tar", "mds": ".mds", "parquet": ".parquet"}


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*.safetensors")
    }


@pytest.fixture
def latents(auravae, work, picture):
    """A folder of latents of odd sizes, one of them flipped."""
    picture("in/a.png", 21, 30)
    picture("in/sub/b.png", 16, 24, shift=3)
    auravae("encode", "in", "-o", "lat")
    picture("others/c.png", 21, 30)
    auravae("encode", "others", "-o", "others")
    auravae("flip", "others/c.safetensors", "-H", "-o", "lat/c.safetensors")
    return Path("lat")


@pytest.mark.parametrize("name", FORMATS)
def test_exported_latents_come_back_as_they_were(auravae, latents, name):
    assert auravae("export", "lat", "--to", name, "-o", "out").code == 0
    result = auravae("import", "out", "--from", name, "-o", "back", "--layout", "files")
    assert result.code == 0
    assert files_of("back") == files_of("lat")
    again = auravae("import", "out", "--from", name, "-o", "back", "--layout", "files", "--json")
    assert {row["status"] for row in again.rows[:-1]} == {"skipped"}


@pytest.mark.parametrize("name", FORMATS)
def test_stores_come_back_and_are_sound(auravae, work, make_store, name):
    store = make_store()
    auravae("export", store, "--to", name, "-o", "out")
    result = auravae("import", "out", "--from", name, "-o", "again", "--layout", "shards")
    assert result.code == 0, result.err
    assert "15 latents" in result.message
    assert auravae("verify", "again").code == 0
    rows = {}
    for folder in (store, Path("again")):
        for path in folder.rglob("*.safetensors"):
            shard = read_latents(path)
            for number, record in enumerate(shard.records):
                rows.setdefault(record.key, []).append(shard.row(number).to_bytes())
    assert len(rows) == 15
    assert all(one == other for one, other in rows.values())
    more = auravae("import", "out", "--from", name, "-o", "again", "--json")
    assert {row["status"] for row in more.rows[:-1]} == {"skipped"}


def test_two_imports_at_once_fill_one_store(auravae, work, make_store):
    auravae("export", make_store(), "--to", "webdataset", "-o", "out")
    auravae("import", "out", "--from", "webdataset", "-o", "one", "--layout", "shards")
    tars = sorted(map(str, Path("out").iterdir()))
    line = [sys.executable, "-m", "auravae_cli", "import", "--from", "webdataset", "-o", "two"]
    parts = (tars[: len(tars) // 2], tars[len(tars) // 2 :])
    runs = [subprocess.Popen([*line, "--layout", "shards", "--quiet", *part]) for part in parts]
    assert len(tars) > 1
    assert [run.wait() for run in runs] == [0, 0]
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_a_changed_file_makes_its_shard_anew(auravae, work, make_store):
    store = make_store(shards={"a": {(2, 2): 5}})
    auravae("export", store, "--to", "npz", "-o", "out")
    auravae("import", "out", "--from", "npz", "-o", "s", "--layout", "shards", "--shard-size", "2")
    before = {path.name: path.read_bytes() for path in Path("s").iterdir()}
    assert sum(name.endswith("manifest.json") for name in before) == 3
    path = sorted(Path("out").rglob("*.npz"))[0]
    with np.load(path) as arrays:
        np.savez(
            path,
            **{
                k: arrays[k] * np.float16(0.5) if k == "latent" else arrays[k] for k in arrays.files
            },
        )
    result = auravae("import", "out", "--from", "npz", "-o", "s", "--json")
    assert sorted(row["status"] for row in result.rows[:-1]) == ["done", "skipped", "skipped"]
    assert auravae("verify", "s").code == 0


def test_foreign_latents_need_a_model(auravae, work):
    np.save("z.npy", np.random.default_rng(0).normal(size=(16, 2, 3)).astype(np.float32))
    result = auravae("import", "z.npy", "--from", "npy", "-o", "out")
    assert result.code == 1
    assert "--assume-model" in result.message
    result = auravae("import", "z.npy", "--from", "npy", "-o", "out", "--assume-model", "linear")
    assert result.code == 0
    latent = read_latents(Path("out/z.safetensors"))
    path, config = find_weights("linear")
    assert latent.space.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (latent.space.irreps, latent.space.clamp) == (config.space.irreps, config.space.clamp)
    assert latent.records[0].image_size == (16, 24)
    assert auravae("decode", "out/z.safetensors", "-o", "z.png").code == 0


def test_an_unknown_model(auravae, work):
    np.save("z.npy", np.zeros((16, 2, 3), np.float32))
    result = auravae("import", "z.npy", "--from", "npy", "-o", "out", "--assume-model", "nobody")
    assert result.code == 3
    assert "no model 'nobody'" in result.message


def test_bad_files_are_named_and_the_others_imported(auravae, work):
    Path("in").mkdir()
    good = np.zeros((16, 2, 3), np.float16)
    np.save("in/good.npy", good)
    np.save("in/nan.npy", good + np.float16(np.nan))
    np.save("in/large.npy", good + np.float16(9))
    np.save("in/shape.npy", good[:4])
    np.save("in/ints.npy", good.astype(int))
    Path("in/cut.npy").write_bytes(Path("in/good.npy").read_bytes()[:-1])
    Path("in/empty.npy").write_bytes(b"")
    options = ["--from", "npy", "--assume-model", "linear", "--json"]
    result = auravae("import", "in", "missing.npy", *options, "-o", "out")
    assert result.code == 1
    status = {Path(row["source"]).stem: row for row in result.rows[:-1]}
    assert {name for name, row in status.items() if row["status"] == "done"} == {"good"}
    for name, message in {
        "nan": "NaN",
        "large": "beyond the clamp",
        "shape": "expected [16, h, w]",
        "ints": "int64",
        "cut": "damaged",
        "empty": "no .npy file",
        "missing": "cannot be read",
    }.items():
        assert message in status[name]["reason"], name
    assert set(files_of("out")) == {"good.safetensors"}
    result = auravae("import", "in", *options, "-o", "store", "--layout", "shards")
    assert result.code == 1
    assert (result.rows[0]["rows"], result.rows[0]["failures"]) == (1, 6)
    assert auravae("verify", "store").code == 0


def test_nothing_that_can_be_imported_makes_no_store(auravae, work):
    Path("z.npy").write_bytes(b"junk")
    result = auravae("import", "z.npy", "--from", "npy", "-o", "s", "--layout", "shards")
    assert result.code == 1
    assert "none of 1 files" in result.message
    assert not Path("s").exists()


def test_a_store_has_one_dtype(auravae, work):
    Path("in").mkdir()
    np.save("in/a.npy", np.full((16, 2, 3), 0.1, np.float16))
    np.save("in/b.npy", np.full((16, 2, 3), 0.1, np.float32))
    arguments = ["import", "in", "--from", "npy", "--assume-model", "linear", "--layout", "shards"]
    result = auravae(*arguments, "-o", "s")
    assert result.code == 1
    assert "--latent-dtype" in result.message
    assert auravae(*arguments, "-o", "t", "--latent-dtype", "bfloat16").code == 0
    assert read_latents(next(Path("t").glob("*.safetensors"))).dtype.name == "bfloat16"


def test_another_model_does_not_go_into_a_store(auravae, work, latents):
    auravae("export", "lat", "--to", "comfyui", "-o", "out")
    auravae("import", "out", "--from", "comfyui", "-o", "s", "--layout", "shards")
    np.save("z.npy", np.zeros((16, 2, 3), np.float16))
    result = auravae("import", "z.npy", "--from", "npy", "-o", "s", "--assume-model", "small")
    assert result.code == 1
    assert "never mixed" in result.message


def test_no_input_is_replaced_by_another_ones_result(auravae, work, latents):
    auravae("export", "lat/a.safetensors", "--to", "musubi", "-o", "m")
    Path("m/a.safetensors").write_bytes(next(Path("m").iterdir()).read_bytes())
    before = files_of("m")
    result = auravae("import", "m", "--from", "musubi", "-o", "m", "--overwrite")
    assert result.code == 1
    assert "m/a.safetensors is an input itself" in result.message
    assert files_of("m") == before


def test_what_is_not_taken_is_told_once(auravae, work, latents):
    auravae("export", "lat", "--to", "kohya", "-o", "out")
    result = auravae("import", "out", "--from", "kohya", "-o", "back")
    assert result.message.count("not imported: latents_flipped (3)") == 1
    result = auravae("import", "out", "--from", "kohya", "-o", "back", "--json")
    assert result.rows[-1]["not_taken"] == {"latents_flipped": 3}


def test_flipped_copies_of_ours_are_not_taken_and_those_of_others_are(auravae, work, latents):
    auravae("export", "lat/a.safetensors", "--to", "ai-toolkit", "-o", "out")
    result = auravae("import", "out", "--from", "ai-toolkit", "-o", "back", "--json")
    assert sorted(row["status"] for row in result.rows[:-1]) == ["done", "skipped"]
    Path("x/_latent_cache").mkdir(parents=True)
    path = f"x/_latent_cache/p_{'y' * 22}.safetensors"
    save_file(
        {"latent": np.zeros((16, 2, 3), np.float32)}, path, {"flip_x": "true", "filename": "p.jpg"}
    )
    auravae("import", "x", "--from", "ai-toolkit", "-o", "far", "--assume-model", "linear")
    assert read_latents(Path("far/p.h.safetensors")).records[0].orientation == H


@pytest.mark.parametrize("layout", ["files", "shards"])
def test_a_table_whose_labels_are_partly_missing(auravae, work, layout):
    """pandas makes them floats, which no record holds."""
    columns = {"latent": [np.full(1024, 0.5, np.float32)] * 3, "shape": [[16, 8, 8]] * 3}
    columns |= {"label": [1, None, 2]}
    columns |= {"key": [10, 11, 12], "caption": ["a", None, ""]}
    pandas.DataFrame(columns).to_parquet("x.parquet")
    arguments = ["--from", "parquet", "--assume-model", "linear"]
    result = auravae("import", "x.parquet", *arguments, "-o", "out", "--layout", layout)
    assert result.code == 0
    assert layout == "files" or auravae("verify", "out").code == 0
    found = [read_latents(path).records for path in sorted(Path("out").glob("*.safetensors"))]
    said = [record.annotations for records in found for record in records]
    assert said == [{"label": 1, "caption": "a"}, {}, {"label": 2}]


def test_text_encoder_caches_are_passed_over(auravae, work, latents):
    auravae("export", "lat", "--to", "musubi", "-o", "out")
    save_file({"vl_embed": np.zeros(3, np.float32)}, "out/a_zi_te.safetensors")
    assert auravae("import", "out", "--from", "musubi", "-o", "back").code == 0
    assert auravae("import", "out/a_zi_te.safetensors", "--from", "musubi", "-o", "b").code == 1


def test_files_that_stand_there_are_kept(auravae, work, latents):
    auravae("export", "lat", "--to", "npz", "-o", "out")
    Path("back").mkdir()
    Path("back/a.safetensors").write_bytes(b"mine")
    result = auravae("import", "out", "--from", "npz", "-o", "back")
    assert result.code == 1
    assert Path("back/a.safetensors").read_bytes() == b"mine"
    assert auravae("import", "out", "--from", "npz", "-o", "back", "--overwrite").code == 0
    assert files_of("back") == files_of("lat")


def test_the_input_is_never_replaced(auravae, work, latents):
    before = files_of("lat")
    arguments = ["import", "lat", "--from", "safetensors", "-o", "lat", "--overwrite"]
    result = auravae(*arguments, "--latent-dtype", "float32")
    assert result.code == 1
    assert "is an input itself" in result.message
    assert files_of("lat") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.npy", "--from", "npy"], "name a folder"),
        (["a.npy", "-o", "out"], "name a format"),
        (["--from", "npy", "-o", "out"], "none was named"),
        (["empty", "--from", "npy", "-o", "out"], "there is none in what was named"),
        (["-", "--from", "npy", "-o", "out"], "standard input"),
        (["a.npy", "--from", "npy", "-o", "s", "--layout", "shards", "--overwrite"], "never"),
    ],
)
def test_wrong_usage(auravae, work, arguments, message):
    Path("empty").mkdir()
    result = auravae("import", *arguments)
    assert result.code == 2
    assert message in result.message


@pytest.mark.parametrize("name", ["safetensors", "ai-toolkit", "lightningdit"])
def test_a_file_that_is_cut_off_is_not_called_a_latent(auravae, work, latents, name):
    auravae("export", "lat/a.safetensors", "--to", name, "-o", "out")
    path = next(Path("out").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    options = ("-o", "back", "--layout", "files")
    result = auravae("import", path, "--from", name, *options)
    assert result.code == 1
    assert "auravae decode" not in result.message
    whole = auravae("import", "lat/a.safetensors", "--from", "lightningdit", *options)
    assert "auravae decode" in whole.message


@pytest.mark.parametrize("name", ["webdataset", "sana"])
def test_what_is_packed_beside_tars_is_passed_over(auravae, work, make_store, name):
    auravae("export", make_store(), "--to", name, "-o", "out")
    Path("out/stats.json.gz").write_bytes(b"packed")
    result = auravae("import", "out", "--from", name, "-o", "again")
    assert (result.code, auravae("verify", "again").code) == (0, 0)
    assert auravae("import", "out/stats.json.gz", "--from", name, "-o", "other").code == 1


def keys_of(store):
    """The keys of a store's rows, by shard."""
    found = {}
    for path in sorted(Path(store).glob("*.safetensors")):
        keys = found.setdefault(path.name.partition(".")[0], [])
        keys += [record.key for record in read_latents(path).records]
    return found


@pytest.mark.parametrize("name", ["webdataset", "mds", "parquet"])
def test_equal_keys_in_two_shards_are_told_apart(auravae, work, make_store, tree, name):
    """Also if a run is cut off, and if the first shard is made again."""
    auravae("export", make_store("one", shards={"a": {(2, 2): 2}}), "--to", name, "-o", "one-out")
    files = [path for path in Path("one-out").rglob("*") if FORMATS_OF_KEYS[name] == path.suffix]
    Path("in").mkdir()
    for stem in ("first", "second"):
        Path(f"in/{stem}{files[0].suffix}").write_bytes(files[0].read_bytes())
    arguments = ["import", "in", "--from", name, "-o", "s", "--layout", "shards"]
    assert auravae(*arguments).code == 0
    assert auravae("verify", "s").code == 0
    whole, keys = tree(Path("s")), keys_of("s")
    assert keys == {"first": ["a/2x2/0", "a/2x2/1"], "second": ["second/000001", "second/000002"]}
    for shard in keys:
        Path(f"s/{shard}.manifest.json").unlink()
        assert auravae(*arguments).code == 0
        assert tree(Path("s")) == whole


def test_equal_names_of_single_files_are_told_apart(auravae, work, picture):
    for side in (16, 24, 32):
        picture(f"in{side}/a.png", side, side)
        auravae("encode", f"in{side}", "-o", f"lat{side}")
        auravae("export", f"lat{side}", "--to", "kohya", "-o", "out")
    arguments = ["import", "out", "--from", "kohya", "-o", "s", "--layout", "shards"]
    assert auravae(*arguments, "--shard-size", "1").code == 0
    assert auravae("verify", "s").code == 0
    keys = keys_of("s")
    assert len(keys) > 1
    assert len({key for some in keys.values() for key in some}) == 3
