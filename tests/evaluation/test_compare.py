"""Kept evaluations side by side: which numbers changed beyond chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from auravae_cli.errors import UsageError
from auravae_cli.evaluation.compare import compare_runs, paired_bootstrap
from auravae_cli.evaluation.measure import MeasureOptions
from auravae_cli.evaluation.run import EvalOptions
from auravae_cli.evaluation.session import EvaluationFiles, evaluate
from auravae_cli.latents.dtypes import FLOAT32


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two kept runs, the second of latents in float32."""
    place = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        (place / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / "photos" / f"{number}.png")
    for name, dtype in (("a", None), ("b", FLOAT32)):
        measure = (
            MeasureOptions(noise=(0.1,))
            if dtype is None
            else MeasureOptions(noise=(0.1,), stored_dtype=dtype)
        )
        evaluate(
            str(place / "photos"),
            ["linear"],
            lpips="none",
            options=EvalOptions(measure, flips=2, sweeps=2),
            files=EvaluationFiles(place / name),
        )
    return place


def changed(runs, name, change):
    """The first run, with its rows changed."""
    folder = runs / name
    folder.mkdir(exist_ok=True)
    lines = (runs / "a" / "results.jsonl").read_bytes().splitlines()
    rows = [change(number, json.loads(line)) for number, line in enumerate(lines)]
    text = "".join(json.dumps(row) + "\n" for row in rows if row)
    (folder / "results.jsonl").write_text(text)
    return folder


def numbers(found):
    (model,) = found["models"]
    return {one["name"]: one for one in model["numbers"]}


def test_what_did_not_change(runs):
    found = compare_runs(runs / "a", runs / "b")
    assert found["models"][0]["pictures"] == 12
    psnr = numbers(found)["psnr"]
    assert psnr["pictures"] == 12 and abs(psnr["change"]) < 0.01
    assert numbers(found)["PSNR, noise 0.1"]["pictures"] == 2
    assert any("stored_dtype differs: float16 and float32" in note for note in found["notes"])


def test_what_changed_beyond_chance(runs):
    random = np.random.default_rng(1)
    shifts = random.normal(0.5, 0.2, 12)
    noise = random.normal(0, 0.01, 12)

    def change(number, row):
        row["psnr"] += shifts[number]
        row["ciede2000"] += shifts[number]
        row["ssim"] += noise[number] - noise.mean()
        return row

    found = numbers(compare_runs(runs / "a" / "summary.json", changed(runs, "c", change)))
    assert (found["psnr"]["verdict"], found["ciede2000"]["verdict"]) == ("better", "worse")
    assert found["psnr"]["change"] == pytest.approx(shifts.mean())
    assert found["ssim"]["verdict"] == "same"
    low, high = found["psnr"]["interval"]
    spread = 1.96 * shifts.std() / np.sqrt(12)
    assert (low, high) == pytest.approx((shifts.mean() - spread, shifts.mean() + spread), abs=0.03)


def test_the_interval_is_that_of_its_definition():
    values = np.array([1.0, 3.0])
    assert paired_bootstrap(values) == (1.0, 3.0)
    assert paired_bootstrap(np.full(5, 2.0)) == (2.0, 2.0)
    many = np.random.default_rng(0).normal(0, 1, 400)
    low, high = paired_bootstrap(many)
    assert high - low == pytest.approx(2 * 1.96 * many.std() / 20, rel=0.05)
    from scipy.stats import bootstrap

    expected = bootstrap((many,), np.mean, method="percentile", rng=0).confidence_interval
    assert (low, high) == pytest.approx(tuple(expected), abs=0.01)


def test_models_and_pictures_are_paired(runs):
    renamed = changed(runs, "d", lambda n, row: {**row, "model": "other"} if n < 5 else None)
    found = compare_runs(runs / "a", renamed)
    assert found["models"][0]["second"] == "other" and found["models"][0]["pictures"] == 5
    assert any("fewer than 10 pictures" in note for note in found["notes"])


def test_what_cannot_be_compared(runs, tmp_path):
    (tmp_path / "results.jsonl").write_text("no results\n")
    two = changed(runs, "e", lambda n, row: {**row, "model": f"m{n % 2}"})
    apart = changed(runs, "f", lambda n, row: {**row, "sha256": f"{n:064}"})
    doubled = changed(runs, "g", lambda n, row: {**row, "sha256": "0" * 64})
    for other, words in {
        tmp_path: "no results of auravae eval",
        tmp_path / "gone": "cannot be read",
        two: "no model in common",
        apart: "no picture in common",
        doubled: "by other settings",
    }.items():
        with pytest.raises(UsageError, match=words):
            compare_runs(runs / "a", Path(other))
