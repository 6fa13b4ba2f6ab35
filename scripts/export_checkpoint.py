"""Export the averaged weights of a run that is under way, as if it had ended.

    python scripts/export_checkpoint.py RECIPE CHECKPOINT FOLDER --data PHOTOS [--data ...] [--mix WEIGHTS SHARE]

FOLDER gets model.safetensors, preview.png and a line of log.jsonl; the run is left alone. RECIPE is the
one that the run follows now, PHOTOS are its pictures. Four minutes on two cores.

With --mix, a SHARE of the weights is the run's, and the rest is that of the model from which the run started. That
can have fewer residual blocks: where it has none, it is the identity.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from auravae_cli.files.toml_config import read_config
from auravae_cli.model.checkpoints.read import read_checkpoint as read_weights
from auravae_cli.model.network.tied import load_whole_state, whole_state
from auravae_cli.train.checkpoint import read_run
from auravae_cli.train.loop import initial_state
from auravae_cli.train.pictures import read_pictures
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.run import finish
from auravae_cli.train.trainable import TrainedAutoencoder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--mix", nargs=2, metavar=("WEIGHTS", "SHARE"))
    options = parser.parse_args(arguments)
    recipe = read_config(options.recipe, Recipe)
    if options.data:
        recipe = replace(recipe, data=replace(recipe.data, sources=tuple(options.data)))
    state = initial_state(recipe, torch.device("cpu"))
    for change in read_run(options.checkpoint, state, recipe, is_new_recipe=True):
        print(f"the checkpoint's recipe differs: {change}")
    facts = {}
    if options.mix:
        start, share = Path(options.mix[0]), float(options.mix[1])
        mix(state.ema, start, share)
        digest = hashlib.sha256(start.read_bytes()).hexdigest()
        facts["mixed"] = {"share": share, "with_sha256": digest}
    pictures = read_pictures(recipe.data)
    options.folder.mkdir(parents=True, exist_ok=True)
    held = finish(options.folder, state, recipe, pictures, **facts)
    print(f"step {held.step}: PSNR {held.psnr:.2f} dB  SSIM {held.ssim:.4f}  tint {held.tint:.2f}")


def mix(ema: TrainedAutoencoder, start: Path, share: float) -> None:
    """Take ``share`` of the weights, and the rest of those in ``start`` (model soups, Wortsman et al. 2022)."""
    before = {name: torch.from_numpy(array) for name, array in read_weights(start).state.items()}
    after = whole_state(ema)
    mixed = {
        name: tensor.lerp(before[name], 1 - share)
        if name in before
        else tensor * (share if ".conv2." in name else 1)  # the last layer of a block's branch
        for name, tensor in after.items()
    }
    load_whole_state(ema, mixed)


if __name__ == "__main__":
    main()
