"""export: stores, shards and files in the formats of others; resumed, refused, and told of losses."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from auravae_cli import H, parse_buckets, read_latents, stack
from auravae_cli.symmetry.action import act

FORMATS = [
    *("comfyui", "kohya", "musubi", "ai-toolkit", "lightningdit", "mar", "webdataset"),
    *("npy", "npz", "safetensors", "pt", "parquet"),
]


def rows_of(store: Path) -> dict[str, np.ndarray]:
    """The values of a store by key."""
    found = {}
    for path in store.rglob("*.safetensors"):
        latents = read_latents(path)
        found |= {r.key: latents.values[n] for n, r in enumerate(latents.records)}
    return found


def test_a_store_gives_a_file_for_each_latent(auravae, work, make_store):
    store = make_store()
    result = auravae("export", store, "--to", "kohya", "-o", "out")
    assert result.code == 0
    files = sorted(Path("out").rglob("*.npz"))
    values = rows_of(store)
    assert len(files) == len(values) == len(result.text.splitlines()) == 15
    for key, z in values.items():
        (path,) = Path("out").glob(f"{key}_*_flux.npz")
        size = f"_{z.shape[1]}x{z.shape[2]}"
        with np.load(path) as arrays:
            assert np.array_equal(arrays["latents" + size], z.astype(np.float32))
            irreps = read_latents(next(store.rglob("*.safetensors"))).space.irreps
            mirrored = act(H, z.astype(np.float32), irreps)
            assert np.array_equal(arrays["latents_flipped" + size], mirrored)


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_run_writes_nothing(auravae, work, make_store, tree, name):
    store = make_store()
    assert auravae("export", store, "--to", name, "-o", "out").code == 0
    before, times = tree(Path("out")), [p.stat().st_mtime_ns for p in Path("out").rglob("*")]
    again = auravae("export", store, "--to", name, "-o", "out", "--json")
    assert again.code == 0
    *rows, last = again.rows
    assert rows and {row["status"] for row in rows} == {"skipped"}
    assert last["format"] == name
    assert tree(Path("out")) == before
    assert [p.stat().st_mtime_ns for p in Path("out").rglob("*")] == times


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_run_is_gone_on_with(auravae, work, make_store, tree, name):
    store = make_store()
    auravae("export", store, "--to", name, "-o", "whole")
    auravae("export", store, "--to", name, "-o", "part")
    gone = sorted(p for p in Path("part").rglob("*") if p.is_file())[1::2]
    for path in gone:
        path.unlink()
    statuses = [
        r["status"]
        for r in auravae("export", store, "--to", name, "-o", "part", "--json").rows[:-1]
    ]
    assert statuses.count("done") == len(gone)
    assert tree(Path("part")) == tree(Path("whole"))


def test_files_of_others_are_kept(auravae, work, make_store):
    store = make_store()
    auravae("export", store, "--to", "npy", "-o", "out")
    path = sorted(Path("out").rglob("*.npy"))[0]
    path.write_bytes(b"mine")
    result = auravae("export", store, "--to", "npy", "-o", "out")
    assert result.code == 1
    assert "exists already" in result.message
    assert path.read_bytes() == b"mine"
    assert auravae("export", store, "--to", "npy", "-o", "out", "--overwrite").code == 0
    assert path.read_bytes() != b"mine"


def test_single_files_and_folders(auravae, work, latent, tree):
    Path("in/sub").mkdir(parents=True)
    for name in ("in/a.safetensors", "in/sub/b.safetensors"):
        Path(name).write_bytes(latent.read_bytes())
    assert auravae("export", "in", "--to", "npy", "-o", "out").code == 0
    assert set(tree(Path("out"))) == {"a.npy", "sub/b.npy"}
    assert auravae("export", latent, "--to", "comfyui", "-o", "one").code == 0
    assert set(tree(Path("one"))) == {"z.latent"}


def test_single_latents_go_together_into_shards(auravae, work, latent):
    z = read_latents(latent)
    for name in "abc":
        Path(f"{name}.safetensors").write_bytes(z.to_bytes())
    names = [f"{name}.safetensors" for name in "abc"]
    result = auravae("export", *names, "--to", "lightningdit", "-o", "out", "--json")
    shard, statistics = result.rows[:-1]
    assert shard["details"] == {"latents": 3}
    assert Path(statistics["output"]).name == "latents_stats.pt"
    Path("s.safetensors").write_bytes(stack([z] * 3).to_bytes())
    auravae("export", "s.safetensors", "--to", "lightningdit", "-o", "shard")
    name = "latents_rank00_shard000.safetensors"
    assert Path("shard", name).read_bytes() == Path("out", name).read_bytes()


def test_bad_latents_are_named_and_the_others_exported(auravae, work, latent):
    import torch

    z = read_latents(latent)
    bad = z.values.copy()
    bad[0, 0, 0] = np.nan
    rows = stack([z, z])
    values = rows.values.copy()
    values[1, 0, 0, 0] = np.inf
    for name, content in {
        "bad": type(z)(bad, z.dtype, z.space, z.records, "x"),
        "shard": type(z)(values, z.dtype, z.space, rows.records, "x"),
    }.items():
        Path(f"{name}.safetensors").write_bytes(content.to_bytes())
    Path("junk.safetensors").write_bytes(b"junk")
    inputs = ["bad.safetensors", "junk.safetensors", "missing.safetensors", latent]
    result = auravae("export", *inputs, "--to", "npy", "-o", "out", "--json")
    assert result.code == 1
    assert [row["status"] for row in result.rows[:-1]] == ["failed"] * 3 + ["done"]
    assert "NaN" in result.rows[0]["reason"]
    result = auravae("export", "shard.safetensors", "--to", "lightningdit", "-o", "l", "--json")
    assert [(row["source"], row["status"]) for row in result.rows[:-1]] == [
        ("shard.safetensors[1]", "failed"),
        ("shard.safetensors", "done"),
        ("latents_stats.pt", "done"),
    ]
    assert torch.load("l/latents_stats.pt")["std"].isfinite().all()


def test_damaged_stores_cost_what_is_damaged(auravae, work, make_store):
    store = make_store()
    (store / "sub/c.2x3.safetensors").unlink()
    path = store / "a.2x3.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = auravae("export", store, "--to", "npy", "-o", "out", "--json")
    assert result.code == 1
    statuses = [row["status"] for row in result.rows[:-1]]
    assert (statuses.count("failed"), statuses.count("done")) == (2, 6)


def test_an_unfinished_store_is_no_complete_one(auravae, work, make_store):
    store = make_store(shards={"files-00000": {(2, 2): 1}, "a": {(2, 2): 2}}, num_file_shards=3)
    (store / "a.manifest.json").unlink()
    result = auravae("export", store, "--to", "npy", "-o", "out", "--json")
    assert result.code == 1
    begun, missing, done = result.rows[:-1]
    assert begun["source"] == f"{store}/a" and "not finished" in begun["reason"]
    assert "2 of 3 shards of loose files are not there" in missing["reason"]
    assert done["status"] == "done"


def test_a_store_without_a_latent_is_no_success(auravae, work, make_store):
    for number, shards in enumerate(({}, {"a": {}})):
        store = make_store(f"store{number}", shards=shards)
        result = auravae("export", store, "--to", "npy", "-o", "out")
        assert result.code == 1
        assert f"failed: {store}: no " in result.message


def test_two_latents_of_one_name(auravae, work, latent):
    z = read_latents(latent)
    Path("x").mkdir()
    Path("x/z.safetensors").write_bytes(z.act(H).to_bytes())
    for options in ((), ("--overwrite",)):
        result = auravae("export", latent, "x/z.safetensors", "--to", "npy", "-o", "out", *options)
        assert result.code == 1
        assert "another latent is called 'z'" in result.message
        assert np.array_equal(np.load("out/z.npy"), z.values)


def test_models_are_not_mixed_unless_asked(auravae, work, latent, make_store):
    store = make_store(shards={"a": {(2, 2): 1}})
    arguments = ["export", store, latent, "--to", "npy", "-o", "out"]
    result = auravae(*arguments)
    assert result.code == 1
    assert "'linear'" in result.message and "'toy'" in result.message
    assert auravae(*arguments, "--any-model").code == 0


@pytest.mark.parametrize(
    ("name", "lost", "kept"),
    [
        ("npy", {"model", "padding", "source", "label", "orientation"}, set()),
        ("kohya", {"model", "label"}, {"padding", "source_size"}),
        ("webdataset", set(), {"model", "caption", "label", "padding"}),
        ("edm2", {"model", "padding"}, {"label"}),
    ],
)
def test_what_a_format_has_no_place_for_is_told(auravae, work, make_store, name, lost, kept):
    store = make_store(shards={"a": {(2, 2): 3}}, change=lambda z: z.act(H))
    result = auravae("export", store, "--to", name, "-o", "out", "--json")
    told = set(result.rows[-1]["not_kept"])
    assert told >= lost and not told & kept
    again = auravae("export", store, "--to", name, "-o", "other")
    assert all(field in again.message for field in lost)
    if name in ("npy", "edm2"):
        assert "lost" in again.message and result.rows[-1]["travels_in"] is None
    elif lost:
        assert "auravae import" in again.message and result.rows[-1]["travels_in"]
    assert not auravae("export", store, "--to", name, "-o", "third", "--quiet").err


def test_edm2_takes_squares_of_one_size_and_all_labels_or_none(auravae, work, make_store):
    store = make_store(shards={"a": {(2, 2): 3}})
    assert auravae("export", store, "--to", "edm2", "-o", "out").code == 0
    labels = json.loads(Path("out/dataset.json").read_bytes())["labels"]
    assert labels == [[f"00000/img-mean-std-{n:08d}.npy", n] for n in range(3)]
    mixed = make_store("mixed", shards={"a": {(2, 2): 2, (2, 3): 1}, "b": {(3, 3): 1, (2, 2): 1}})
    result = auravae("export", mixed, "--to", "edm2", "-o", "more", "--json")
    assert result.code == 1
    reasons = [row["reason"] for row in result.rows[:-1] if row["status"] == "failed"]
    assert (
        sum("takes squares" in r for r in reasons)
        == sum("takes one size" in r for r in reasons)
        == 1
    )
    assert json.loads(Path("more/dataset.json").read_bytes())["labels"] is None  # b has none
    assert len(list(Path("more").rglob("*.npy"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "npy"], "name a folder"),
        (["-o", "out"], "name a format"),
        (["--to", "mp3", "-o", "out"], "mp3"),
        (["--to", "npy", "-o", "out", "--arch", "sd"], "names no network"),
        (["--to", "kohya", "-o", "out", "--arch", "x"], "expected one of flux"),
        (["--to", "mar", "-o", "out", "--no-flipped"], "at random"),
        (["--to", "kohya", "-o", "out", "--for-shift"], "shifts nothing"),
        (["--to", "kohya", "-o", "out", "--arch", "hi"], "expected one of flux"),
        (["--to", "npy", "-o", "out", "--pictures", "."], "does not number its files"),
        (["--to", "edm2", "-o", "out", "--pictures", "absent"], "folder of the pictures"),
    ],
)
def test_wrong_usage(auravae, latent, arguments, message):
    result = auravae("export", latent, *arguments)
    assert result.code == 2
    assert message in result.message


def test_from_pictures_to_a_trainers_cache(auravae, work, picture):
    """What the docs say: in the trainer's buckets, beside the pictures, without a warning."""
    for number, (height, width) in enumerate([(60, 100), (100, 61), (64, 64)]):
        picture(f"photos/{number}.png", height, width)
    options = "kohya:64,min_bucket_reso=32,max_bucket_reso=128,bucket_reso_steps=8"
    made = auravae("encode", "photos", "-o", "latents", "--buckets-of", options)
    assert made.code == 0, made.err
    result = auravae("export", "latents", "--to", "kohya", "-o", "photos", "--json")
    assert result.code == 0
    assert not [text for text in result.rows[-1]["notices"] if "--buckets-of" in text]
    buckets = parse_buckets(options)
    for path in Path("photos").glob("*.npz"):
        width, height = (int(side) for side in path.stem.split("_")[-2].split("x"))
        high, wide = buckets.nearest(height, width)
        with np.load(path) as arrays:
            assert arrays[f"latents_{high // 8}x{wide // 8}"].shape[0] == 16
    wrong = auravae(
        "encode", "photos", "-o", "latents", "--buckets-of", "kohya:64", "--resize", "9"
    )
    assert wrong.code == 2 and "leave out --resize" in wrong.message
    wrong = auravae("encode", "photos", "-o", "latents", "--buckets-of", "other:64")
    assert wrong.code == 2 and "musubi" in wrong.message


def test_nothing_to_export_is_wrong_usage(auravae, work):
    Path("empty").mkdir()
    for arguments in ([], ["empty"]):
        assert auravae("export", *arguments, "--to", "npy", "-o", "out").code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(auravae, latent):
    Path("out").mkdir(mode=0o500)
    assert auravae("export", latent, "--to", "npy", "-o", "out").code == 1


def test_an_output_that_is_a_file(auravae, latent):
    Path("out").write_text("mine")
    result = auravae("export", latent, "--to", "npy", "-o", "out")
    assert result.code == 1
    assert "cannot write" in result.message
    assert Path("out").read_text() == "mine"


def test_the_input_is_never_replaced(auravae, latent):
    before = latent.read_bytes()
    result = auravae("export", latent, "--to", "safetensors", "-o", ".", "--overwrite")
    assert result.code == 1
    assert "is an input itself" in result.message
    assert latent.read_bytes() == before


def test_a_row_of_a_shard_replaces_no_input(auravae, latent):
    """Neither its own shard nor another file that is read."""
    z = read_latents(latent)
    rows = stack([z, z.act(H)])
    records = tuple(
        replace(record, key=key) for record, key in zip(rows.records, ("a", "z"), strict=True)
    )
    Path("a.safetensors").write_bytes(replace(rows, records=records).to_bytes())
    before = Path("a.safetensors").read_bytes(), latent.read_bytes()
    arguments = ["export", "a.safetensors", latent, "--to", "safetensors", "-o", "."]
    result = auravae(*arguments, "--overwrite")
    assert result.code == 1
    assert all(f"{name}.safetensors is an input itself" in result.message for name in "az")
    assert (Path("a.safetensors").read_bytes(), latent.read_bytes()) == before


@pytest.mark.parametrize("name", ["edm2", "lightningdit", "webdataset"])
def test_numbered_files_of_an_earlier_export_are_told(auravae, work, make_store, name):
    many = make_store("many", shards={"a": {(2, 2): 2}, "b": {(2, 2): 2}})
    few = make_store("few", shards={"a": {(2, 2): 1}})
    assert "earlier" not in auravae("export", many, "--to", name, "-o", "out").message
    count = 3 if name == "edm2" else 1
    for options in ((), ("--overwrite",)):
        result = auravae("export", few, "--to", name, "-o", "out", *options)
        assert f"of an earlier export, {count} more of its files" in result.message


def test_an_index_that_cannot_be_replaced_says_how(auravae, work, make_store):
    first = make_store("first", shards={"a": {(2, 2): 1}})
    other = make_store("other", shards={"b": {(2, 2): 2}})
    auravae("export", first, "--to", "mds", "-o", "out")
    result = auravae("export", other, "--to", "mds", "-o", "out", "--json")
    assert result.code == 1
    assert "--overwrite" in result.rows[-2]["reason"]


def test_nothing_is_done_if_the_file_of_all_latents_stays_as_it_is(auravae, work, make_store):
    pytest.importorskip("h5py")
    first = make_store("first", shards={"a": {(2, 2): 1}})
    other = make_store("other", shards={"b": {(2, 2): 2}})
    for store, status in ((first, "done"), (first, "skipped"), (other, "failed")):
        result = auravae("export", store, "--to", "repa-e", "-o", "out", "--json")
        assert {row["status"] for row in result.rows[:-1]} == {status}
    assert all("--overwrite" in row["reason"] for row in result.rows[:-1])


def test_numbered_formats_take_a_flipped_store_beside_the_store(auravae, work, make_store):
    store = make_store(shards={"a": {(2, 2): 2}})
    auravae("flip", store, "-H", "-o", "flipped")
    result = auravae("export", store, "flipped", "--to", "edm2", "-o", "out")
    assert (result.code, len(list(Path("out").rglob("*.npy")))) == (0, 4)
    result = auravae("export", store, "flipped", "--to", "npy", "-o", "npy")
    assert (result.code, len(list(Path("npy").rglob("*.npy")))) == (1, 2)
    assert "export one of them to another folder" in result.message
