"""Reconstructions that were made elsewhere, beside models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from auravae_cli.errors import UsageError
from auravae_cli.evaluation.run import EvalOptions
from auravae_cli.evaluation.session import EvaluationFiles, evaluate
from auravae_cli.model.codec import load_codec

FEW = EvalOptions(flips=1, sweeps=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Originals in two folders, and what the linear model makes of them in others."""
    place = tmp_path_factory.mktemp("pictures")
    codec, random = load_codec("linear"), np.random.default_rng(0)
    for name in ("one/a", "one/b", "two/c"):
        waves = np.cumsum(random.normal(0, 9, (40, 56, 3)), 1) + 128
        pixels = np.clip(waves, 0, 255).astype(np.uint8)
        decoded = codec.decode_latent(codec.encode_image(pixels))
        for folder, picture in (("photos", pixels), ("made", decoded)):
            path = place / folder / f"{name}.{'png' if folder == 'photos' else 'bmp'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return place


def test_they_measure_as_the_model_that_made_them(photos, tmp_path):
    models = ["linear", f"folder:{photos / 'made'}"]
    files = EvaluationFiles(tmp_path / "run", csv=tmp_path / "n.csv", html=tmp_path / "page.html")
    result = evaluate(str(photos / "photos"), models, lpips="none", options=FEW, files=files)
    assert not result.failures
    linear, made = result.summary["models"]
    assert made["label"] == "made"
    for metric in ("psnr", "ssim", "ciede2000"):
        assert made["quality"][metric] == linear["quality"][metric]
    assert made["latent"] is made["certificate"] is made["space"] is None
    page = (tmp_path / "page.html").read_text()
    assert "Made elsewhere: there are no latents" in page and ">made</" in page
    steps = []
    evaluate(
        str(photos / "photos"),
        models,
        lpips="none",
        options=FEW,
        files=EvaluationFiles(tmp_path / "run", overwrite=True),
        progress=lambda step, done, total: steps.append(step),
    )
    assert not [step for step in steps if isinstance(step, tuple)]  # nothing is measured again


def test_a_changed_reconstruction_is_measured_again(photos, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    psnrs = []
    for number in (0, 9):
        for path in (photos / "photos").rglob("*.png"):
            pixels = np.asarray(Image.open(path))
            dark = pixels - np.minimum(pixels, number).astype(np.uint8)
            Image.fromarray(dark).save(folder / f"{path.stem}.png")
        files = EvaluationFiles(tmp_path / "run", overwrite=True)
        result = evaluate(
            str(photos / "photos"), [f"folder:{folder}"], lpips="none", options=FEW, files=files
        )
        psnrs.append(result.summary["models"][0]["quality"]["psnr"])
    assert psnrs[0] is None and psnrs[1]["mean"] > 28


def test_what_is_missing_or_does_not_fit(photos, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    result = evaluate(str(photos / "photos"), [f"folder:{folder}"], lpips="none", options=FEW)
    reasons = {bad.picture: bad.reason for bad in result.failures}
    assert "has 9 x 9 pixels, the original 56 x 40" in reasons["one/a.png"]
    assert "none of its name" in reasons["two/c.png"]
    (folder / "twice").mkdir()
    for place in (folder / "b.png", folder / "b.webp"):
        Image.new("RGB", (9, 9)).save(place)
    for name, words in {
        f"folder:{folder}": "two reconstructions of one picture",
        f"folder:{tmp_path / 'gone'}": "no such folder",
        f"folder:{folder / 'twice'}": "no pictures in it",
    }.items():
        with pytest.raises(UsageError, match=words):
            evaluate(str(photos / "photos"), [name], lpips="none")


def test_the_rows_can_be_read_again(photos, tmp_path):
    files = EvaluationFiles(tmp_path / "run")
    evaluate(
        str(photos / "photos"),
        [f"folder:{photos / 'made'}"],
        lpips="none",
        options=FEW,
        files=files,
    )
    lines = (tmp_path / "run" / "results.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["moments"] for line in lines] == [None] * 3
