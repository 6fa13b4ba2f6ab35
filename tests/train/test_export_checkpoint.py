"""A run under way is exported by scripts/export_checkpoint.py, and is left alone."""

from __future__ import annotations

import hashlib
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from auravae_cli.files.toml_config import read_config
from auravae_cli.model.codec import load_codec
from auravae_cli.model.network.tied import load_whole_state, whole_state
from auravae_cli.model.spec.card import read_card
from auravae_cli.train import run
from auravae_cli.train.processes import Processes
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.run import run_training
from auravae_cli.train.trainable import build
from auravae_cli.train.write_model import write_weights

SCRIPT = Path(__file__).parents[2] / "scripts" / "export_checkpoint.py"
RECIPE = """
name = "tiny"
precision = "float32"
[architecture]
ch = 32
ch_mult = [1, 2]
num_res_blocks = 1
latent_channels = 8
[space]
channels = 8
downsampling_factor = 2
irreps = "6xee+1xoe+1xeo"
[data]
num_validation = 2
[[stages]]
steps = 9
crop_size = 16
batch_size = 2
"""


@pytest.fixture
def interrupted(photos, tmp_path, monkeypatch):
    """A recipe file, and the folder of a run that was stopped after one step."""

    monkeypatch.setattr(run, "PREVIEW_SIDE", 32)
    monkeypatch.setattr(run, "SCALE_COUNT", 2)
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    recipe = read_config(path, Recipe)
    recipe = replace(recipe, data=replace(recipe.data, sources=(str(photos),)))
    events = run_training(recipe, tmp_path / "run", torch.device("cpu"), Processes())
    for _ in range(4):  # pictures, start, opening, a step
        next(events)
    events.close()
    return path, tmp_path / "run"


def test_the_model_of_a_run_under_way(interrupted, photos, tmp_path, capsys):
    recipe, folder = interrupted
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    main = runpy.run_path(str(SCRIPT))["main"]
    place = tmp_path / "new" / "out"
    main([*map(str, (recipe, folder / "checkpoint.pt", place)), "--data", str(photos)])
    assert capsys.readouterr().out.startswith("step 1: PSNR ")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    codec = load_codec(str(place / "model.safetensors"), device="cpu")
    assert np.isfinite(codec.decode(codec.encode(np.zeros((1, 3, 16, 16), np.float32)))).all()
    with Image.open(place / "preview.png") as preview:
        assert preview.width > 4 * 32


def test_a_recipe_that_has_changed_since_is_told(interrupted, photos, tmp_path, capsys):
    recipe, folder = interrupted
    recipe.write_text(RECIPE.replace("steps = 9", "steps = 7"))
    main = runpy.run_path(str(SCRIPT))["main"]
    main([*map(str, (recipe, folder / "checkpoint.pt", tmp_path / "o")), "--data", str(photos)])
    assert "stages.0.steps: 9 then, 7 now" in capsys.readouterr().out


def test_a_mixture_is_told_in_the_card(interrupted, photos, tmp_path):
    recipe, folder = interrupted
    main = runpy.run_path(str(SCRIPT))["main"]
    first, second = tmp_path / "first", tmp_path / "second"
    command = [str(recipe), str(folder / "checkpoint.pt")]
    main([*command, str(first), "--data", str(photos)])
    start = first / "model.safetensors"
    main([*command, str(second), "--data", str(photos), "--mix", str(start), "0.5"])
    mixed = second / "model.safetensors"
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    assert read_card(mixed).content["mixed"] == {"share": 0.5, "with_sha256": digest}
    codec = load_codec(str(mixed), device="cpu")
    assert np.isfinite(codec.encode(np.zeros((1, 3, 16, 16), np.float32))).all()


def test_the_weights_of_a_run_are_mixed_with_those_of_its_start(make_recipe, tmp_path):
    small = make_recipe()
    large = replace(small, architecture=replace(small.architecture, num_res_blocks=(1, 2)))
    start, ema = (build(recipe) for recipe in (small, large))
    for number, module in enumerate((start, ema)):
        generator = torch.Generator().manual_seed(number)
        weights = {
            n: torch.randn(t.shape, generator=generator) for n, t in whole_state(module).items()
        }
        load_whole_state(module, weights)
    before, after = whole_state(start), whole_state(ema)
    path = tmp_path / "start.safetensors"
    write_weights(path, before, small, {})
    runpy.run_path(str(SCRIPT))["mix"](ema, path, 0.25)
    for name, found in whole_state(ema).items():
        if name in before:
            expected = 0.75 * before[name] + 0.25 * after[name]
        else:  # a block that the start has not: there it is the identity
            expected = after[name] * (0.25 if ".conv2." in name else 1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert whole_state(ema).keys() - before.keys()
