"""flip on a store: a store of its own, with the laws of the group, resumed, and never of damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from auravae_cli import GROUP, LatentDataset, act
from auravae_cli.store import flip
from auravae_cli.store.certificate import CERTIFICATE_FILE
from auravae_cli.symmetry.group import HV, H, V
from tests.cli.datasets import everything
from tests.conftest import SPACE

OPTIONS = {H: "-H", V: "-V", HV: "-HV"}


def samples(store, **options):
    data = LatentDataset(store, fields=("key", "padding"), **options)
    return [data[index] for index in range(len(data))]


@pytest.mark.parametrize("g", GROUP[1:], ids=str)
def test_it_is_a_store_of_the_flipped_latents(auravae, work, make_store, g):
    store = make_store()
    assert auravae("flip", store, OPTIONS[g], "-o", "flipped").code == 0
    assert auravae("verify", "flipped").code == 0
    plain, flipped = samples(store), samples(Path("flipped"))
    assert len(plain) == len(flipped) > 3
    for one, other in zip(plain, flipped, strict=True):
        assert one["key"] == other["key"]
        assert np.array_equal(act(g, one["latent"], SPACE.irreps), other["latent"])
    assert auravae("info", "flipped", "--json").row["preparation"] == {
        "pad": "edge",
        "flipped": str(g),
    }
    ledgers = [path.relative_to(store) for path in store.rglob("*.failures.jsonl")]
    assert ledgers
    for ledger in ledgers:
        assert Path("flipped", ledger).read_bytes() == (store / ledger).read_bytes()


def test_flips_of_stores_obey_the_group(auravae, work, make_store):
    store = make_store()
    (store / CERTIFICATE_FILE).write_bytes(b"{}\n")
    for source, option, target in (
        (store, "-H", "h"),
        ("h", "-H", "hh"),
        ("h", "-V", "h-v"),
        (store, "-HV", "hv"),
    ):
        assert auravae("flip", source, option, "-o", target).code == 0
    assert everything(Path("hh")) == everything(store)
    assert everything(Path("h-v")) == everything(Path("hv")) != everything(store)


def test_a_second_run_does_what_is_missing(auravae, work, make_store):
    store = make_store()
    auravae("flip", store, "-H", "-o", "out")
    whole = everything(Path("out"))
    Path("out/a.manifest.json").unlink()
    next(Path("out").glob("a.*.safetensors")).write_bytes(b"half")
    Path("out/a.9x9.safetensors").write_bytes(b"of an older version")
    result = auravae("flip", store, "-H", "-o", "out", "--json")
    assert result.code == 0
    assert {row["shard"]: row["status"] for row in result.rows} == {
        row["shard"]: "done" if row["shard"] == "a" else "skipped" for row in result.rows
    }
    assert everything(Path("out")) == whole


def test_a_lost_ledger_is_missing_too(auravae, work, make_store):
    store = make_store()
    auravae("flip", store, "-H", "-o", "out")
    whole = everything(Path("out"))
    Path("out/b.failures.jsonl").unlink()
    assert auravae("flip", store, "-H", "-o", "out").code == 0
    assert everything(Path("out")) == whole


def test_another_flip_of_a_store_does_not_mix_with_it(auravae, work, make_store):
    store = make_store()
    auravae("flip", store, "-H", "-o", "out")
    whole = everything(Path("out"))
    result = auravae("flip", store, "-V", "-o", "out")
    assert result.code != 0
    assert "never mixed" in result.err
    assert everything(Path("out")) == whole


def test_damaged_files_are_not_made_to_look_sound(auravae, work, make_store):
    store = make_store()
    damaged, missing = (next(store.glob(f"{name}.*.safetensors")) for name in ("a", "sub/c"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    missing.unlink()
    result = auravae("flip", store, "-H", "-o", "out", "--json")
    assert result.code == 1
    reasons = {row["shard"]: row["reason"] for row in result.rows if row["status"] == "failed"}
    assert set(reasons) == {"a", "sub/c"}
    assert "verify" in reasons["a"]
    assert "missing" in reasons["sub/c"]
    assert not [name for name in everything(Path("out")) if name.startswith(("a.", "sub/c"))]
    assert not list(Path("out").glob(".*"))


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_done(
    auravae, work, make_store, monkeypatch
):
    store = make_store()

    def full(latents, g):
        yield b"the first block"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flip, "flipped_chunks", full)
    result = auravae("flip", store, "-H", "-o", "out")
    assert result.code == 1
    assert "No space left on device" in result.err
    assert set(everything(Path("out"))) == {"store.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store"], "name a place for the flipped store"),
        (["store", "-o", "-"], "name a place for the flipped store"),
        (["store", "-o", "store"], "the store itself, or in it"),
        (["store", "-o", "store/flipped"], "the store itself, or in it"),
        (["store", "a.safetensors", "-o", "out"], "flip one store at a time"),
        (["store", "-o", "out", "--overwrite"], "flip one store at a time"),
    ],
)
def test_what_cannot_be_flipped_is_wrong_usage(auravae, work, make_store, arguments, message):
    store = make_store()
    before = everything(store)
    result = auravae("flip", *[str(a).replace("store", str(store)) for a in arguments], "-H")
    assert result.code == 2
    assert message in result.message
    assert everything(store) == before


def test_a_shard_that_is_not_finished_is_named_and_the_others_flipped(auravae, work, make_store):
    store = make_store(shards={"files-00000": {(2, 2): 1}, "a": {(2, 2): 2}}, num_file_shards=3)
    (store / "a.manifest.json").unlink()
    result = auravae("flip", store, "-H", "-o", "out")
    assert result.code == 1
    assert "shard a: not finished" in result.message
    assert "2 of 3 shards of loose files are not there" in result.message
    assert [path.name for path in Path("out").glob("*.manifest.json")] == [
        "files-00000.manifest.json"
    ]
