"""What the tests of the trainer share: small photographs, tiny recipes, short runs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from auravae_cli.images.read import read_image
from auravae_cli.model.spec.config import Architecture, SpaceSpec
from auravae_cli.symmetry.group import Irreps
from auravae_cli.train import kernels
from auravae_cli.train.checkpoint import write_checkpoint
from auravae_cli.train.loop import initial_state, train
from auravae_cli.train.pictures import read_pictures
from auravae_cli.train.processes import Processes
from auravae_cli.train.recipe import Data, LossWeights, Optimizer, Recipe, Stage

SAMPLES = Path(__file__).parents[2] / "samples"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def found():
    """The kernels, where this processor has what they need."""
    kernels.find.cache_clear()
    return kernels.find() or pytest.skip("no AVX-512 BF16, or no compiler")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of six small photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for path in SAMPLES.iterdir():
        if path.suffix != ".md" and "16bit" not in path.name:
            image = Image.fromarray(read_image(path.read_bytes()).pixels)
            image.thumbnail((96, 96))
            image.save(folder / f"{path.stem}.png")
    return folder


@pytest.fixture(scope="session")
def make_recipe(photos):
    """The smallest recipe, with changes: ``make_recipe(steps=5, crop=16, seed=1)``."""

    def make(*, steps=4, crop=16, batch=2, losses=LossWeights(), kind="adamw", rate=2e-3, **others):
        facts = {
            "name": "tiny",
            "architecture": Architecture(32, (1, 2), 1, 8),
            "space": SpaceSpec(8, 2, Irreps.parse("6xee+1xoe+1xeo")),
            "stages": (Stage(steps, crop, batch, losses),),
            "data": Data(sources=(str(photos),), num_validation=2),
            "optimizer": Optimizer(kind, rate, warmup_steps=2),
            "precision": "float32",
        }
        recipe = Recipe(**facts | others)
        assert recipe.faults == []
        return recipe

    return make


@pytest.fixture(scope="session")
def pictures(make_recipe):
    """The photographs, decoded."""
    return read_pictures(make_recipe().data)


@pytest.fixture
def advance(pictures):
    """Train: ``advance(recipe, 3)`` gives the state after three steps, and their records."""

    def go(recipe, steps=None, state=None, on=pictures):
        state = state or initial_state(recipe, CPU)
        stream = train(state, recipe, on, CPU, Processes())
        records = list(islice(stream, recipe.num_steps if steps is None else steps))
        stream.close()
        return state, records

    return go


@pytest.fixture
def content(make_recipe, tmp_path):
    """Everything that a checkpoint holds of a state, by dotted name: tensors and numbers."""

    def flatten(value, prefix):
        if isinstance(value, (dict, list, tuple)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            pairs = (flatten(item, f"{prefix}.{key}") for key, item in items)
            return {name: item for flat in pairs for name, item in flat.items()}
        return {prefix: value.clone() if isinstance(value, torch.Tensor) else value}

    def read(state):
        path = tmp_path / "content.pt"
        write_checkpoint(path, state, make_recipe())
        return flatten(torch.load(path, weights_only=True), "")

    return read


@pytest.fixture
def differences():
    """The names under which two contents differ, bit for bit."""

    def compare(found, expected):
        assert found.keys() == expected.keys()
        return [
            name
            for name, value in expected.items()
            if not (
                torch.equal(found[name], value)
                if isinstance(value, torch.Tensor)
                else found[name] == value
            )
        ]

    return compare
