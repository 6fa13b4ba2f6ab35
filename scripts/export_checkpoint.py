"""Export the averaged weights of a run that is under way, as if it had ended.

    python scripts/export_checkpoint.py RECIPE CHECKPOINT FOLDER --data PHOTOS [--data ...]

FOLDER gets model.safetensors, preview.png and a line of log.jsonl; the run is left alone. RECIPE is the
one that the run follows now, PHOTOS are its pictures. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from auravae_cli.files.toml_config import read_config
from auravae_cli.train.checkpoint import read_run
from auravae_cli.train.loop import initial_state
from auravae_cli.train.pictures import read_pictures
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.run import finish


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", action="append", default=[])
    options = parser.parse_args(arguments)
    recipe = read_config(options.recipe, Recipe)
    if options.data:
        recipe = replace(recipe, data=replace(recipe.data, sources=tuple(options.data)))
    state = initial_state(recipe, torch.device("cpu"))
    for change in read_run(options.checkpoint, state, recipe, is_new_recipe=True):
        print(f"the checkpoint's recipe differs: {change}")
    pictures = read_pictures(recipe.data)
    options.folder.mkdir(parents=True, exist_ok=True)
    held = finish(options.folder, state, recipe, pictures)
    print(f"step {held.step}: PSNR {held.psnr:.2f} dB  SSIM {held.ssim:.4f}  tint {held.tint:.2f}")


if __name__ == "__main__":
    main()
