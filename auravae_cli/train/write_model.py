"""From a trained state to a weights file: averaged weights, a latent of unit deviation, a card."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from auravae_cli.errors import ComputeError
from auravae_cli.files.atomic import write_atomically
from auravae_cli.files.canonical_json import write_json
from auravae_cli.model.checkpoints.ties import representatives
from auravae_cli.model.network.tied import assign
from auravae_cli.model.spec.card import KEY
from auravae_cli.train.recipe import Recipe
from auravae_cli.train.trainable import TrainedAutoencoder
from auravae_cli.version import __version__

CENTRING_ROUNDS = 8
_AT_ONCE = 8  # pictures
DEAD = 1e-4  # a channel that hardly varies stays as it is


@torch.inference_mode()
def latent_deviation(autoencoder: TrainedAutoencoder, images: Tensor) -> Tensor:
    """The standard deviation of every latent channel over pictures and their flips: [C]."""
    latents = [autoencoder.encoder(part).float() for part in images.split(_AT_ONCE)]
    whole = torch.cat([latent.transpose(0, 1).flatten(1) for latent in latents], 1)
    even = list(autoencoder.irreps.even_channels)
    mean = torch.zeros_like(whole[:, 0])  # an odd channel's mean over an orbit is zero
    mean[even] = whole[even].mean(1)
    deviation = (whole - mean[:, None]).square().mean(1).sqrt()
    return torch.where(deviation > DEAD, deviation, 1.0)


@torch.no_grad()
def centre_colours(autoencoder: TrainedAutoencoder, images: Tensor) -> tuple[float, ...]:
    """Shift the decoder's last bias so that reconstructions have the mean colour of the pictures.

    What bfloat16 rounds while training, and what the average over weights does not average, leave a
    tint. Gives how far red, green and blue were off.
    """
    found = torch.cat([autoencoder(part)[0].float() for part in images.split(_AT_ONCE)])
    tint, wanted = torch.zeros_like(images[0, :, 0, 0]), images.mean((0, 2, 3))
    for _ in range(CENTRING_ROUNDS):  # pixels that are clamped do not move with the bias
        tint += (found - tint[:, None, None]).clamp(-1, 1).mean((0, 2, 3)) - wanted
    conv = autoencoder.decoder.conv_out
    assert conv.bias is not None
    assign(conv, "bias", conv.bias - tint)
    return tuple(tint.tolist())


def unit_deviation(state: dict[str, Tensor], deviation: Tensor) -> dict[str, Tensor]:
    """Weights whose latent is that of ``state``, each channel divided by its deviation.

    The decoder's first convolution takes the factor back, so reconstructions do not change.
    """
    scaled = dict(state)
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):
        shape = (-1, *[1] * (state[name].ndim - 1))
        scaled[name] = state[name] / deviation.view(shape)
    name = "decoder.conv_in.weight"
    scaled[name] = state[name] * deviation[:, None, None]
    return scaled


def model_card(recipe: Recipe, num_steps: int, validation: dict[str, Any]) -> dict[str, Any]:
    """The statement of a weights file about its origin."""
    content = recipe.to_json()
    # Where the pictures lay is of no use to others, and may be private: their names say enough.
    content["data"]["sources"] = [Path(source).name for source in recipe.data.sources]
    if recipe.start not in ("random", "linear"):
        content["start"] = Path(recipe.start).name
    content["lpips_weights"] = recipe.lpips_weights and Path(recipe.lpips_weights).name
    return {
        "recipe": content,
        "steps": num_steps,
        "validation": validation,
        "version": __version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the checkout that runs; None in an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_weights(
    path: Path, state: dict[str, Tensor], recipe: Recipe, card: dict[str, Any]
) -> None:
    """Write weights with their card; exactly equivariant ones by representatives.

    Raises ComputeError if they are not finite, and OutputError.
    """
    is_tied = recipe.equivariance == "exact"
    irreps = recipe.space.irreps
    stored = representatives(state, irreps) if is_tied else state
    facts = {
        "kind": "network",
        "format": 1,
        "tied": is_tied,
        "irreps": str(irreps),
        "clamp": recipe.space.clamp,
        **card,
    }
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in stored.items()}
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ComputeError(
            f"{path} is not written: {bad[0]} and {len(bad) - 1} more of {len(tensors)} tensors are not finite as "
            "float16: training has diverged; continue from an earlier checkpoint, with a lower learning rate"
        )
    write_atomically(path, save(tensors, {KEY: write_json(facts, sort_keys=True)}))
