"""info on stores: counts from the manifests, and the distribution of values by channel."""

from __future__ import annotations

import numpy as np
import pytest

from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32
from auravae_cli.latents.latent_file import read_latents


def values_of(store):
    """All values of a store by channel, [C, ...]."""
    files = [read_latents(path) for path in sorted(store.rglob("*.safetensors"))]
    rows = [v.reshape(4, -1) for z in files for v in z.dtype.to_float32(z.values)]
    return np.concatenate(rows, axis=1, dtype=np.float64)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT32])
def test_facts(auravae, make_store, dtype):
    store = make_store(dtype=dtype)
    row = auravae("info", store, "--json").row
    values = values_of(store)
    counts = row["histogram"].pop("counts")
    assert row == {
        "store": str(store),
        "shards": 4,
        "rows": 15,
        "failures": 2,
        "bytes": sum(path.stat().st_size for path in store.rglob("*.safetensors")),
        "model": "toy",
        "weights_sha256": "f" * 64,
        "downsampling_factor": 8,
        "representation": "2xee+1xoe+1xeo",
        "clamp": 4.0,
        "stored_dtype": dtype.name,
        "compute_dtype": "float32",
        "preparation": {"pad": "edge"},
        "num_file_shards": row["num_file_shards"],
        "shapes": [
            {"cells": [2, 3], "pixels": [16, 24], "rows": 9},
            {"cells": [2, 2], "pixels": [16, 16], "rows": 3},
            {"cells": [3, 2], "pixels": [24, 16], "rows": 3},
        ],
        "not_finite": 0,
        "clamped": 0,
        "mean_per_channel": values.mean(1).round(4).tolist(),
        "deviation_per_channel": values.std(1).round(4).tolist(),
        "minimum_per_channel": values.min(1).round(4).tolist(),
        "maximum_per_channel": values.max(1).round(4).tolist(),
        "histogram": {"edges": np.linspace(-4, 4, 65).tolist()},
    }
    assert counts == [np.histogram(v, 64, (-4, 4))[0].tolist() for v in values]


def test_the_tables(auravae, make_store):
    store = make_store(shards={"a": {(2, 3): 5}, "b": {(3, 2): 7}})
    lines = auravae("info", store).text.splitlines()
    assert lines[0] == str(store)
    assert "rows                 12" in lines
    shapes = lines.index("cells, h x w  pixels, W x H  rows")
    assert lines[shapes + 1 : shapes + 3] == [
        "3 x 2         16 x 24        7",
        "2 x 3         24 x 16        5",
    ]
    drawn = [line.partition("|")[2] for line in lines if line.endswith("|")]
    assert len(drawn) == 4
    assert all(len(line) == 65 and "█" in line for line in drawn)
    assert auravae("info", store, terminals="stdout stderr").code == 0


def test_quick_reads_no_values(auravae, make_store):
    store = make_store()
    for path in store.rglob("*.safetensors"):
        path.write_bytes(b"")
    row = auravae("info", store, "--quick", "--json").row
    assert row["rows"] == 15 and "histogram" not in row
    assert "█" not in auravae("info", store, "--quick").text


def test_a_store_without_rows(auravae, make_store):
    store = make_store(shards={"b": {}})
    row = auravae("info", store, "--json").row
    assert row["shapes"] == []
    assert row["mean_per_channel"] == row["maximum_per_channel"] == [None] * 4
    assert auravae("info", store).code == 0


def test_damage_is_told(auravae, make_store):
    store = make_store()
    (store / "a.2x3.safetensors").write_bytes(b"x")
    result = auravae("info", store)
    assert result.code == 1
    assert result.err.startswith(f"failed: {store}/a.2x3.safetensors: not a safetensors file")
    (store / "a.2x3.safetensors").unlink()
    assert "a.2x3.safetensors: missing; see `auravae verify`" in auravae("info", store).err
    (store / "store.json").write_text("{")
    assert "store.json: damaged" in auravae("info", store).err


def test_stores_beside_files_and_folders(auravae, make_store, latent):
    store = make_store()
    rows = auravae("info", store, latent, store / "sub", "--json").rows
    assert [row.get("store") or row["file"] for row in rows] == [
        str(store),
        "z.safetensors",
        *(str(path) for path in sorted((store / "sub").glob("*.safetensors"))),
    ]


def test_remote_stores(auravae, make_store):
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(str(make_store()), "/informed", recursive=True)
    try:
        assert auravae("info", "memory://informed", "--json").row["rows"] == 15
    finally:
        files.rm("/informed", recursive=True)
    result = auravae("info", "memory://informed")
    assert result.code == 1
    assert "memory://informed: not a store" in result.err
