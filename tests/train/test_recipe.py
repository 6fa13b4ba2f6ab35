"""Recipes: the shipped ones load; a bad one lists all of its faults at once; no torch is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from auravae_cli.errors import ConfigError
from auravae_cli.files.toml_config import read_config
from auravae_cli.model.spec.config import Architecture, configs_path
from auravae_cli.model.spec.registry import known_models
from auravae_cli.symmetry.group import Irreps
from auravae_cli.train.recipe import LossWeights, Recipe, Stage

CONFIGS = sorted((configs_path() / "train").glob("*.toml"))
HEAD = """
name = "x"
[architecture]
ch = 32
ch_mult = [1, 1, 1, 2]
num_res_blocks = 1
latent_channels = 16
"""
STAGE = "[[stages]]\nsteps = 3\ncrop_size = 16\nbatch_size = 2\n"


def load(text, folder):
    path = folder / "recipe.toml"
    path.write_text(text)
    return read_config(path, Recipe)


def faults(text, folder):
    with pytest.raises(ConfigError) as caught:
        load(text, folder)
    title, *lines = str(caught.value).splitlines()
    assert title == f"{folder / 'recipe.toml'}:"
    return sorted(line.strip() for line in lines)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_shipped_recipes_load(path):
    recipe = read_config(path, Recipe)
    assert recipe.name in known_models()
    assert recipe.num_steps > 100


def test_there_are_shipped_recipes():
    assert CONFIGS


def test_defaults_and_tables(tmp_path):
    recipe = load(HEAD + STAGE + "losses = { gan = 1, l1 = 0.5 }\n" + STAGE, tmp_path)
    assert [stage.losses for stage in recipe.stages] == [
        LossWeights(l1=0.5, gan=1.0),
        LossWeights(),
    ]
    assert recipe.num_steps == 6
    assert (recipe.start, recipe.equivariance, recipe.lpips_weights) == ("random", "exact", None)


def test_every_fault_is_listed_at_once(tmp_path):
    text = """
        name = 5
        precison = "float32"
        seed = "zero"
        compile = 1
        discriminator_learning_rate = nan
        lpips_weights = 3
        [architecture]
        ch = 48
        ch_mult = [1, 2]
        num_res_blocks = 1
        latent_channels = 16
        [space]
        irreps = "15xee"
        [data]
        drawn = 1.5
        min_scale = 0
        num_validation = -1
        [noise]
        level = -0.1
        share = -1
        [optimizer]
        kind = "sgd"
        learning_rate = 0
        warmup_steps = -1
        ema = 2
        [[stages]]
        steps = 0
        crop_size = 16
        batch_size = -2
        [[stages]]
        steps = 1.5
        crop = 16
        batch_size = true
        losses = { l1 = "much", l2 = 1 }
        [[stages]]
        steps = 1
        crop_size = 16
        batch_size = 1
        losses = { l1 = 0, mse = 0 }
        """
    assert faults(text, tmp_path) == sorted(
        [
            "name: expected str, found 5",
            "precison: unknown key",
            "discriminator_learning_rate: expected a finite number, found nan",
            "seed: expected int, found 'zero'",
            "compile: expected bool, found 1",
            "lpips_weights: expected str, found 3",
            "architecture.every width must be a multiple of 32 (norm groups): (48, 96)",
            "space.irreps: 15xee does not add up to 16 channels",
            "data.drawn: expected a share from 0 to 1, found 1.5",
            "data.min_scale: expected a positive number, found 0.0",
            "data.num_validation: expected a positive number, found -1",
            "noise.level: expected at least 0, found -0.1",
            "noise.share: expected a share from 0 to 1, found -1.0",
            "optimizer.kind: expected adamw or muon, found 'sgd'",
            "optimizer.learning_rate: expected a positive number, found 0.0",
            "optimizer.warmup_steps: expected at least 0, found -1",
            "optimizer.ema: expected a share from 0 to 1, found 2.0",
            "stages[0].steps: expected a positive number, found 0",
            "stages[0].batch_size: expected a positive number, found -2",
            "stages[1].steps: expected int, found 1.5",
            "stages[1].crop: unknown key",
            "stages[1].batch_size: expected int, found True",
            "stages[1].losses.l1: expected float, found 'much'",
            "stages[1].losses.l2: unknown key",
            "stages[1]: missing crop_size",
            "stages[2].losses.l1 or mse must be positive",
        ]
    )


CONTRADICTIONS = [
    "equivariance: expected exact or learned, found 'some'",
    "precision: expected float32 or bfloat16, found 'float16'",
    "checkpoint_every: expected a positive number, found 0",
    "discriminator_learning_rate: expected a positive number, found -1.0",
    "stages[1].crop_size: expected a multiple of 8, found 20",
    "space: 8 channels at 1/8, but the architecture has 16 at 1/8",
]
CONTRADICTORY = (
    'equivariance = "some"\nprecision = "float16"\ncheckpoint_every = 0\n'
    "discriminator_learning_rate = -1\n"
    + HEAD
    + '[space]\nchannels = 8\nirreps = "8xee"\n'
    + STAGE
    + STAGE.replace("16", "20")
)


def test_tables_that_contradict_each_other(tmp_path):
    assert faults(CONTRADICTORY, tmp_path) == sorted(CONTRADICTIONS)


def test_faults_within_a_table_do_not_hide_contradictions(tmp_path):
    expected = [*CONTRADICTIONS, "noise.share: expected a share from 0 to 1, found 2.0"]
    assert faults(CONTRADICTORY + "[noise]\nshare = 2\n", tmp_path) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stages = []\n" + HEAD, "stages: expected at least one"),
        (HEAD, "missing stages"),
        ("data = 5\n" + HEAD + STAGE, "data: expected a table, found 5"),
        ("stages = 5\n" + HEAD, "stages: expected a list, found 5"),
        ("stages = [5]\n" + HEAD, "stages[0]: expected a table, found 5"),
        (HEAD + "[data]\nsources = [5]\n" + STAGE, "data.sources[0]: expected str, found 5"),
        (HEAD + "[data]\nmin_scale = 1.5\n" + STAGE, "data.min_scale: must be at most 1"),
        (HEAD + "[data]\ndrawn = 0.6\nflat = 0.5\n" + STAGE, "data.flat: more than drawn leaves"),
    ],
)
def test_single_faults(text, fault, tmp_path):
    assert faults(text, tmp_path) == [fault]


@pytest.fixture
def recipe(tmp_path):
    return load(HEAD + STAGE, tmp_path)


@pytest.mark.parametrize("last", [6, 10, 12])
def test_exact_weights_need_heads_that_map_to_heads(recipe, last):
    """Blocks of C/4 channels and heads of 64 line up where C is 64, 128 or a multiple of 256."""
    changed = replace(recipe, architecture=Architecture(32, (1, 1, 1, last), 1, 16))
    assert changed.faults
    assert replace(changed, equivariance="learned").faults == []


def test_a_negative_seed_is_a_fault(recipe):
    """The generators of numpy take none."""
    assert replace(recipe, seed=-1).faults


@pytest.fixture
def linear(recipe):
    """A recipe with a linear start."""
    return replace(recipe, start="linear", architecture=Architecture(32, (3, 2, 4, 8), 1, 16))


@pytest.mark.parametrize("equivariance", ["exact", "learned"])
def test_a_linear_start_is_one_of_any_equivariance(linear, equivariance):
    assert replace(linear, equivariance=equivariance).faults == []


@pytest.mark.parametrize(
    ("widths", "irreps"),
    [
        ((2, 1, 4, 8), "12xee+2xoe+2xeo"),
        ((3, 2, 4), "12xee+2xoe+2xeo"),
        ((3, 2, 4, 8), "6xee+1xoe+1xeo"),
        ((3, 2, 4, 8), "16xee"),
    ],
)
def test_a_linear_start_needs_a_wide_network_for_the_linear_models_latent(linear, widths, irreps):
    space = replace(linear.space, irreps=Irreps.parse(irreps), channels=Irreps.parse(irreps).dim)
    space = replace(space, downsampling_factor=2 ** (len(widths) - 1))
    architecture = Architecture(32, widths, 1, space.channels)
    (fault,) = replace(linear, space=space, architecture=architecture).faults
    assert "linear start" in fault


@pytest.mark.parametrize(("step", "crop"), [(0, 16), (2, 16), (3, 32), (6, 32), (7, 48), (99, 48)])
def test_a_step_belongs_to_a_stage(recipe, step, crop):
    stages = (Stage(3, 16, 2), Stage(4, 32, 2), Stage(1, 48, 2))
    assert replace(recipe, stages=stages).stage_at(step).crop_size == crop


@settings(derandomize=True, deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_stages_follow_one_another(lengths):
    stages = tuple(Stage(steps, 8 * index, 1) for index, steps in enumerate(lengths, 1))
    recipe = Recipe("x", Architecture(32, (1, 2), 1, 16), stages)
    found = [recipe.stage_at(step) for step in range(recipe.num_steps)]
    assert found == [stage for stage in stages for _ in range(stage.steps)]


def test_a_recipe_is_read_without_torch():
    code = "import sys, auravae_cli.train.recipe; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
