"""info: the facts of latents and shards, for people and machines."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from auravae_cli import H, read_latents, stack
from auravae_cli.images.read import read_image
from auravae_cli.latents.dtypes import FLOAT32
from auravae_cli.operations.describe import describe


def test_facts(auravae, latent, samples):
    z = read_latents(latent)
    row = auravae("info", latent, "--json").row
    source = read_image((samples / "coffee_alpha.png").read_bytes())
    values = np.asarray(z.values, np.float64)
    assert row == {
        "file": "z.safetensors",
        "shape": [16, 16, 20],
        "dtype": "float16",
        "model": "linear",
        "weights_sha256": z.space.weights_sha256,
        "representation": "12xee+2xoe+2xeo",
        "downsampling_factor": 8,
        "clamp": 8.0,
        "tool_version": z.tool_version,
        "image_size": [128, 160],
        "padding": {"left": 0, "right": 0, "top": 0, "bottom": 0},
        "orientation": "e",
        "source": None,
        "source_sha256": source.sha256,
        "exif_orientation": 1,
        "preparation": {"background": "white", "pad": "edge"},
        "computed": {"dtype": "float32", "symmetry": "none"},
        "not_finite": 0,
        "minimum": values.min(),
        "maximum": values.max(),
        "clamped": 0,
        "mean_per_channel": [round(m, 4) for m in values.mean((1, 2))],
        "deviation_per_channel": [round(d, 4) for d in values.std((1, 2))],
    }


def test_the_table_names_every_fact(auravae, latent):
    lines = auravae("info", latent).text.splitlines()
    assert lines[0] == "z.safetensors"
    facts = auravae("info", latent, "--json").row
    assert [line.split()[0] for line in lines[1:]] == [name for name in facts if name != "file"]
    assert "image_size             160 x 128 pixels" in lines


def test_on_a_terminal_the_table_is_drawn(auravae, latent):
    result = auravae("info", latent, terminals="stdout stderr")
    assert result.code == 0
    assert "160 x 128 pixels" in result.text and "12xee+2xoe+2xeo" in result.text


def test_values_that_are_not_finite_are_counted(auravae, latent):
    z = read_latents(latent)
    values = np.array(z.values)
    values[0, 0, 0], values[1, 0, 0], values[1, 1, 1] = np.nan, np.inf, -np.inf
    Path("odd.safetensors").write_bytes(replace(z, values=values).to_bytes())
    row = auravae("info", "odd.safetensors", "--json").row
    assert row["not_finite"] == 3
    assert row["mean_per_channel"][:2] == row["deviation_per_channel"][:2] == [None, None]
    assert row["mean_per_channel"][2] is not None
    assert np.isfinite([row["minimum"], row["maximum"]]).all()


def test_clamped_values_are_counted(auravae, latent):
    z = read_latents(latent)
    values = np.array(z.values)
    values[3, :2, 0] = 8, -8
    Path("c.safetensors").write_bytes(replace(z, values=values).to_bytes())
    assert auravae("info", "c.safetensors", "--json").row["clamped"] == 2


@pytest.mark.parametrize("rows", [0, 3])
def test_shards(auravae, latent, rows):
    z = read_latents(latent)
    shard = stack([z, z.act(H), z])
    shard = replace(shard, values=shard.values[:rows], records=shard.records[:rows])
    Path("shard.safetensors").write_bytes(shard.to_bytes())
    row = auravae("info", "shard.safetensors", "--json").row
    assert row["shape"] == [rows, 16, 16, 20]
    assert "orientation" not in row
    assert len(row["mean_per_channel"]) == 16
    assert (row["maximum"] is None) == (rows == 0)
    assert auravae("info", "shard.safetensors").code == 0


def test_a_shard_is_read_by_blocks(latent, work):
    z = read_latents(latent)
    rows = 48
    values = np.random.default_rng(0).standard_normal((rows, 16, 160, 160), np.float32)
    values = values.astype(np.float16)
    record = replace(z.records[0], image_size=(1280, 1280))
    shard = replace(z, values=values, records=(record,) * rows)
    Path("shard.safetensors").write_bytes(shard.to_bytes())
    tracemalloc.start()
    try:
        facts = describe(read_latents("shard.safetensors"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < values.nbytes
    by_channel = values.astype(np.float64).swapaxes(0, 1).reshape(16, -1)
    assert facts["mean_per_channel"] == pytest.approx(by_channel.mean(1), abs=1e-4)
    assert facts["deviation_per_channel"] == pytest.approx(by_channel.std(1), abs=1e-4)
    assert (facts["minimum"], facts["maximum"]) == (values.min(), values.max())


@pytest.mark.parametrize("clamp", [1e-40, 8.0, 1e300])
def test_whatever_clamp_a_header_claims_facts_are_told(auravae, latent, clamp):
    z = read_latents(latent)
    values = np.array(z.values, np.float32)
    values[0, 0, :3] = 3e38, -3e38, 0
    wild = replace(z, values=values, dtype=FLOAT32, space=replace(z.space, clamp=clamp))
    Path("wild.safetensors").write_bytes(wild.to_bytes())
    row = auravae("info", "wild.safetensors", "--json").row
    assert row["clamped"] == (np.abs(values.astype(np.float64)) >= clamp).sum()
    assert row["minimum"] == values.min() and row["maximum"] == values.max()


def test_streams_and_folders(auravae, latent, work):
    Path("in/sub").mkdir(parents=True)
    Path("in/sub/a.safetensors").write_bytes(latent.read_bytes())
    assert auravae("info", "-", "--json", stdin=latent.read_bytes()).row["file"] == "-"
    assert auravae("info", "in", "--json").row["file"] == "in/sub/a.safetensors"


def test_a_bad_file_does_not_hide_the_others(auravae, latent):
    Path("bad.safetensors").write_text("no latent")
    result = auravae("info", "bad.safetensors", "missing.safetensors", latent, "--json")
    assert result.code == 1
    assert [row["file"] for row in result.rows] == ["z.safetensors"]
    assert "failed: bad.safetensors: " in result.err
    assert "failed: missing.safetensors: cannot be read" in result.err


def test_wrong_usage(auravae, work):
    Path("empty").mkdir()
    assert auravae("info").code == 2
    assert auravae("info", "empty").code == 2
