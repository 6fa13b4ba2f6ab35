"""auravae bench: numbers that agree with each other."""

from __future__ import annotations

import json

import pytest

from auravae_cli.cli.terminal import live
from auravae_cli.forecast import benchmark


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small peaks: the machine's true ones take seconds."""
    monkeypatch.setattr(benchmark, "MATRIX_SIDE", {"cpu": 64})
    monkeypatch.setattr(benchmark, "COPIED_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(benchmark, "FLIP_SECONDS", 1e-4)


def bench(auravae, *options, terminals=""):
    result = auravae("bench", "--json", "--device", "cpu", *options, terminals=terminals)
    assert result.code == 0
    return json.loads(result.text), result.err


def test_a_network(auravae, monkeypatch):
    monkeypatch.setattr(benchmark, "_in_own_process", benchmark._memory)
    monkeypatch.setattr(live, "FIRST_SECONDS", 0.0)
    content, said = bench(
        auravae,
        "-m",
        "small",
        "--dtype",
        "float32",
        "--size",
        "16",
        "--size",
        "24x8",
        "--repeats",
        "3",
        "--only",
        "decode",
        terminals="stderr",
    )
    machine, peaks, results = content["machine"], content["peaks"], content["results"]
    assert machine["model"] == "small" and machine["dtype"] == "float32"
    assert {"python", "torch", "cpu", "threads", "device", "auravae"} <= set(machine)
    assert [row["size"] for row in results] == [[16, 16], [8, 24]]
    assert "measuring decode of" in said and "1 of 3" in said
    for row in results:
        assert row["operation"] == "decode" and len(row["seconds"]) == 3
        low, high = row["quartiles_seconds"]
        assert low <= row["median_seconds"] <= high
        speed = row["nominal_flops"] / row["median_seconds"] / 1e9
        assert row["gflops"] == pytest.approx(speed)
        assert row["share_of_peak"] == pytest.approx(speed / peaks["gflops"])
        assert row["peak_memory_bytes"] >= 0


def test_flips_and_the_linear_model(auravae, monkeypatch):
    monkeypatch.setattr(benchmark, "_in_own_process", lambda *_: 5)
    only = ("--only", "flip", "--only", "encode")
    content, said = bench(
        auravae, "-m", "linear", *only, "--size", "64", "--repeats", "1", "--batch-size", "2", "-q"
    )
    encode, flip = content["results"]
    assert encode["pictures_per_second"] == pytest.approx(2 / encode["median_seconds"])
    assert encode["peak_memory_bytes"] == 5 and "gflops" not in encode
    assert flip["bytes_moved"] == 2 * 2 * 2 * 16 * 8 * 8
    assert flip["gbytes"] == pytest.approx(flip["bytes_moved"] / flip["median_seconds"] / 1e9)
    assert said == ""


def test_the_start_of_commands_and_a_table(auravae, monkeypatch):
    monkeypatch.setattr(benchmark, "COMMANDS", {"nothing": ("-c", "pass")})
    result = auravae("bench", "-m", "linear", "--only", "startup", "--repeats", "1")
    assert result.code == 0
    assert "nothing" in result.text and "matrix product" in result.text


@pytest.mark.parametrize("size", ["0", "7", "x", "16x", "12x16"])
def test_wrong_sizes(auravae, size):
    result = auravae("bench", "--size", size)
    assert result.code == 2 and "multiples of 8" in result.message


def test_memory_is_that_of_a_process_of_its_own():
    request = benchmark.Request("linear", ((512, 512),))
    found = benchmark._in_own_process("encode", (512, 512), request, "cpu")
    assert found is None or found > 16 * 64 * 64 * 4
