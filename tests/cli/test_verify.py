"""verify: every kind of damage is a fault that names its file; a sound store has none."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from auravae_cli.files.canonical_json import canonical
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.store.manifest import Output

COUNTS = {"shards": 4, "rows": 15, "failures": 2}
VICTIM = "a.2x3.safetensors"


def replaced(store, edit_manifest, latents):
    """Put other latents in the place of the victim, with a manifest that agrees."""
    content = latents.to_bytes()
    (store / VICTIM).write_bytes(content)
    output = Output(VICTIM, len(content), hashlib.sha256(content).hexdigest(), latents.values.shape)
    others = [
        o
        for o in json.loads((store / "a.manifest.json").read_bytes())["outputs"]
        if o["name"] != VICTIM
    ]
    outputs = [vars(output) | {"shape": list(output.shape)}, *others]
    edit_manifest(store, "a", outputs=outputs, rows=sum(o["shape"][0] for o in outputs))


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT32])
@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_a_sound_store(auravae, make_store, dtype, options):
    store = make_store(dtype=dtype)
    size = sum(path.stat().st_size for path in store.rglob("*.safetensors"))
    result = auravae("verify", store, *options)
    assert (result.code, result.err) == (0, "")
    assert result.text == f"{store}: sound: 4 shards, 15 rows, 2 failures, {size} bytes\n"
    row = auravae("verify", store, "--json", *options).row
    assert row == {"store": str(store), **COUNTS, "bytes": size, "faults": 0}


def unlink(store, _):
    (store / VICTIM).unlink()


def cut(store, _):
    (store / VICTIM).write_bytes((store / VICTIM).read_bytes()[:-1])


def flip_a_bit(store, _):
    content = bytearray((store / VICTIM).read_bytes())
    content[-1] ^= 1
    (store / VICTIM).write_bytes(content)


def wreck_the_header(store, edit):
    content = b"x" * (store / VICTIM).stat().st_size
    (store / VICTIM).write_bytes(content)


def wreck_the_manifest(store, _):
    (store / "a.manifest.json").write_text("{")


def lose_settings(store, _):
    (store / "store.json").unlink()


def wreck_settings(store, _):
    (store / "store.json").write_text("{}")


def edit_settings(store, _):
    content = json.loads((store / "store.json").read_bytes())
    (store / "store.json").write_bytes(canonical(content | {"compute_dtype": "bfloat16"}))


def respell_settings(store, _):
    content = json.loads((store / "store.json").read_bytes())
    (store / "store.json").write_text(json.dumps(content))


def miscount(store, edit):
    edit(store, "a", rows=8)


def rename(store, _):
    for path in store.glob("b.*"):
        path.rename(store / path.name.replace("b.", "z."))


def lose_the_ledger(store, _):
    (store / "b.failures.jsonl").unlink()


def wreck_the_ledger(store, _):
    (store / "b.failures.jsonl").write_text("no JSON\n")


def leave_a_file(store, _):
    (store / "sub" / "e.2x2.safetensors").write_bytes(b"")


def other_space(store, edit):
    z = read_latents(store / VICTIM)
    replaced(store, edit, replace(z, space=replace(z.space, weights_sha256="0" * 64)))


def other_dtype(store, edit):
    z = read_latents(store / VICTIM)
    replaced(store, edit, replace(z, dtype=BFLOAT16, values=np.zeros(z.values.shape, np.uint16)))


def other_shape(store, edit):
    z = read_latents(store / VICTIM)
    replaced(store, edit, replace(z, values=z.values[:2], records=z.records[:2]))
    outputs = json.loads((store / "a.manifest.json").read_bytes())["outputs"]
    edit(store, "a", outputs=[outputs[0] | {"shape": [5, 4, 2, 3]}, *outputs[1:]], rows=7)


def repeat_a_key(store, edit):
    z = read_latents(store / VICTIM)
    other = read_latents(store / "sub" / "c.2x3.safetensors").records[2].key
    records = (*z.records[:3], replace(z.records[3], key=other), z.records[4])
    replaced(store, edit, replace(z, records=records))


DAMAGES = {
    unlink: (VICTIM, "missing, though its manifest names it"),
    cut: (VICTIM, "bytes, but its manifest says"),
    wreck_the_header: (VICTIM, "not a safetensors file"),
    wreck_the_manifest: ("a.manifest.json", "damaged manifest"),
    lose_settings: ("store.json", "missing"),
    wreck_settings: ("store.json", "no store that this auravae reads"),
    edit_settings: ("b.manifest.json", "made with other settings"),
    respell_settings: ("store.json", "not as it was written"),
    miscount: ("a.manifest.json", "not as it was written"),
    rename: ("z.manifest.json", "the manifest of shard 'b', renamed"),
    lose_the_ledger: ("b.failures.jsonl", "0 failures, but the manifest says 2"),
    wreck_the_ledger: ("b.failures.jsonl", "damaged ledger"),
    leave_a_file: ("sub/e.2x2.safetensors", "no manifest names it"),
    other_space: (
        VICTIM,
        ", weights 000000000000, 2xee+1xoe+1xeo, expected that of 'toy', weights ",
    ),
    other_dtype: (VICTIM, "its dtype is bfloat16, expected float16"),
    other_shape: (VICTIM, "its shape is [2, 4, 2, 3], expected [5, 4, 2, 3]"),
    repeat_a_key: (VICTIM, "row 3 has the key 'sub/c/2x3/2', and so has row 2 of sub/c.2x3"),
}


@pytest.mark.parametrize("options", [[], ["--quick"]])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_a_fault(auravae, make_store, edit_manifest, damage, options):
    store = make_store()
    damage(store, edit_manifest)
    file, text = DAMAGES[damage]
    result = auravae("verify", store, *options)
    assert result.code == 1
    assert any(
        line.startswith(f"fault: {store}/{file}: ") and text in line
        for line in result.err.splitlines()
    ), result.err
    assert " fault" in result.text
    rows = auravae("verify", store, "--json", *options).rows
    faults = [row for row in rows[:-1] if row["kind"] == "fault"]
    assert rows[-1]["faults"] == len(faults) >= 1
    assert any(row["file"] == file and text in row["text"] for row in faults)


@pytest.mark.parametrize("options", [[], ["--quick"]])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_shards_that_went_with_their_manifests_are_missed(auravae, work, picture, number, options):
    for index in range(8):
        picture(f"p/{index}.png", shift=index)
    auravae("encode", "p", "-o", "store", "--layout", "shards", "--shard-size", "2", "-q")
    assert auravae("verify", "store", *options).text.startswith("store: sound: 4 shards, 8 rows")
    for index in range(number):
        for path in (work / "store").glob(f"files-{index:05d}.*"):
            path.unlink()
    result = auravae("verify", "store", *options)
    names = ", ".join(f"files-{index:05d}" for index in range(number))
    fault = f"fault: store: {number} of 4 shards of loose files are not there: {names}; copy the"
    assert result.code == 1 and result.err.startswith(fault)
    assert result.text.startswith(f"store: 1 fault: {4 - number} shards")
    assert auravae("info", "store", "--quick", "--json").row["missing_shards"] == number


def test_a_store_without_a_shard_is_not_sound(auravae, make_store):
    result = auravae("verify", make_store(shards={}, failures={}))
    assert result.code == 1
    assert "fault: " in result.err and "no shard is finished" in result.err


def test_a_million_missing_shards_are_counted(auravae, make_store):
    store = make_store(shards={"files-00001": {(2, 3): 1}}, failures={}, num_file_shards=10**15)
    result = auravae("verify", store)
    assert "999999999999999 of 1000000000000000 shards" in result.err
    assert "files-00000, files-00002, " in result.err and "and 999999999999989 more" in result.err


def test_tars_beside_one_shard_of_loose_files(auravae, make_store):
    shards = {"files-00000": {(2, 3): 1}, "files-0": {(2, 3): 1}, "files-00007": {(2, 3): 1}}
    assert auravae("verify", make_store(shards=shards, failures={})).code == 0


def test_a_changed_bit_is_found_unless_quick(auravae, make_store, edit_manifest):
    store = make_store()
    flip_a_bit(store, edit_manifest)
    assert auravae("verify", store, "--quick").code == 0
    result = auravae("verify", store)
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith(f"fault: {store}/{VICTIM}: its sha256 is not the manifest's")


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT32])
def test_values_that_no_decoder_can_use(auravae, make_store, edit_manifest, dtype):
    store = make_store(dtype=dtype)
    z = read_latents(store / VICTIM)
    values = np.array(z.values)
    odd = np.array([np.nan, -np.inf, 4, -4, 4.0625, -5], np.float32)
    values[3, 0] = dtype.from_float32(odd).reshape(2, 3)
    replaced(store, edit_manifest, replace(z, values=values))
    result = auravae("verify", store)
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.endswith(
        "2 values are NaN or infinite and 2 beyond the clamp of 4, the first in row 3, key 'a/2x3/3'"
    )
    assert auravae("verify", store, "--quick").code == 0


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT32])
@pytest.mark.parametrize("value, bad", [(4, 0), (-4, 0), (4.0625, 1), (-4.0625, 1)])
def test_the_clamp_itself_is_allowed(auravae, make_store, edit_manifest, dtype, value, bad):
    store = make_store(dtype=dtype)
    z = read_latents(store / VICTIM)
    values = np.array(z.values)
    values[4, 1, 1, 2] = dtype.from_float32(np.array([value], np.float32))[0]
    replaced(store, edit_manifest, replace(z, values=values))
    result = auravae("verify", store)
    assert result.code == bad
    assert ("0 values are NaN or infinite and 1 beyond the clamp of 4" in result.err) == bad


def test_repeated_pictures_and_strange_files_are_notes(auravae, make_store):
    store = make_store(
        change=lambda z: replace(z, records=(replace(z.records[0], source_sha256="1" * 64),))
    )
    (store / "notes.txt").write_text("mine")
    result = auravae("verify", store)
    assert result.code == 0
    assert result.err.splitlines() == [
        f"note: {store}: 1 pictures occur more than once, 15 times in all; "
        "the first is row 0 of a.2x3.safetensors",
        f"note: {store}/notes.txt: no file of the store",
    ]
    assert auravae("verify", store, "--quiet").err == ""


def test_rows_without_keys_repeat_nothing(auravae, make_store):
    nameless = make_store(
        change=lambda z: replace(z, records=(replace(z.records[0], key=None, source_sha256=None),))
    )
    assert auravae("verify", nameless).err == ""


def test_many_repeated_keys_are_counted(auravae, make_store):
    store = make_store(
        shards={"a": {(1, 1): 15}, "b": {(1, 1): 15}},
        failures={},
        change=lambda z: replace(z, records=(replace(z.records[0], key=z.records[0].key[1:]),)),
    )
    faults = auravae("verify", store).err.splitlines()
    assert len(faults) == 11
    assert faults[-1] == f"fault: {store}: 5 more keys occur more than once"


def test_remote_stores(auravae, make_store):
    import fsspec

    store = make_store()
    files = fsspec.filesystem("memory")
    files.put(str(store), "/verified", recursive=True)
    try:
        for options in ([], ["--quick"]):
            row = auravae("verify", "memory://verified", "--json", *options).row
            assert COUNTS.items() <= row.items() and row["faults"] == 0
        files.pipe_file(f"/verified/{VICTIM}", b"x")
        assert auravae("verify", "memory://verified").code == 1
    finally:
        files.rm("/verified", recursive=True)


def test_several_stores(auravae, make_store, work):
    good, bad = make_store("good"), make_store("bad")
    (bad / VICTIM).unlink()
    rows = auravae("verify", bad, good, "nowhere", "--json").rows
    summaries = {row["store"]: row["faults"] for row in rows if "faults" in row}
    assert summaries == {str(bad): 1, str(good): 0, "nowhere": 1}


def test_wrong_usage(auravae, work):
    assert auravae("verify").code == 2
    assert auravae("verify", "strange://x").code == 1
