"""Training steps with our own kernels against torch's operations under autocast, on a CPU.

    python benchmarks/training.py [RECIPE] [--rounds 7] [--stage 0]

The same recipe, pictures, draws and optimizers; only what computes a step differs. Both run in
turn in one process; medians, quartiles and the ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from auravae_cli.files.toml_config import read_config
from auravae_cli.model.cpu.native import VARIABLE
from auravae_cli.train import kernels
from auravae_cli.train.loop import StepRecord, initial_state, train
from auravae_cli.train.pictures import Pictures
from auravae_cli.train.processes import Processes
from auravae_cli.train.recipe import Recipe

RECIPE = Path(__file__).parents[1] / "configs/train/small-1.toml"
WARM_UP = 2


def steps(recipe: Recipe, pictures: Pictures, engine: str) -> Iterator[StepRecord]:
    """An endless run; ``engine`` is that of the environment variable when it starts."""
    os.environ[VARIABLE] = engine
    kernels.find.cache_clear()
    state = initial_state(recipe, torch.device("cpu"))
    run = train(state, recipe, pictures, torch.device("cpu"), Processes())
    for _ in range(WARM_UP):
        next(run)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", nargs="?", type=Path, default=RECIPE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stage", type=int, default=0)
    options = parser.parse_args()
    recipe = replace(read_config(options.recipe, Recipe), start="random")
    stage = recipe.stages[options.stage]
    recipe = replace(recipe, stages=(replace(stage, steps=10**6),))
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (8, 512, 512, 3), np.uint8)
    pictures = Pictures(tuple(noise), (), ())
    runs = {name: steps(recipe, pictures, name) for name in ("plain", "auto")}
    if kernels.find() is None:
        raise SystemExit(
            "no kernels here: this processor has no AVX-512 BF16, or nothing builds them"
        )
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            seconds[name].append(next(run).seconds)
    pixels = stage.batch_size * stage.crop_size**2
    print(
        f"{options.recipe.name}: {stage.batch_size} x {stage.crop_size}^2, {torch.get_num_threads()} threads"
    )
    print(f"{'':<8} {'median':>8} {'quartiles':>19} {'pixels/s':>10}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        low, _, high = statistics.quantiles(values, n=4)
        label = "torch" if name == "plain" else "kernels"
        print(
            f"{label:<8} {medians[name]:7.3f}s {low:8.3f} to {high:.3f}s {pixels / medians[name]:10,.0f}"
        )
    print(f"ratio    {medians['plain'] / medians['auto']:7.2f}")


if __name__ == "__main__":
    main()
