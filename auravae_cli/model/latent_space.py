"""The latent space of a model, known without loading it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from auravae_cli.errors import WeightsError
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.model.spec.card import Card, read_card
from auravae_cli.model.spec.config import (
    Architecture,
    ModelConfig,
    SpaceSpec,
    conventional_irreps,
)
from auravae_cli.model.spec.registry import find_weights


def read_space(model: str) -> LatentSpace:
    """The space of a model's latents, by its name or its checkpoint's path.

    A known name costs the sha256 of its weights; only a network's path needs torch.

    Raises:
        WeightsError: no such model, its weights are not on this machine, or they are damaged.
    """
    path, config = find_weights(model)
    digest = weights_sha256(path, config)
    if config is not None:
        return space_of(config.name, digest, config.space)
    card = read_card(path)
    if card is not None and card.kind == "linear":
        return space_of(path.stem, digest, SpaceSpec())
    from auravae_cli.model.network.weights import read_checkpoint

    shapes = {name: tuple(tensor.shape) for name, tensor in read_checkpoint(path).items()}
    architecture = Architecture.from_shapes(shapes)
    if architecture is None:
        raise WeightsError(
            f"{path}: no AuraEquiVAE checkpoint: {len(shapes)} tensors, whose shapes do not fit it"
        )
    return space_of(path.stem, digest, checkpoint_space(path, architecture, card))


def weights_sha256(path: Path, config: ModelConfig | None) -> str:
    """The sha256 of a weights file. Raises WeightsError where it may not go by its model's name."""
    digest = file_sha256(path)
    if config is not None and config.sha256 and digest not in config.sha256:
        known = ", ".join(config.sha256)
        raise WeightsError(
            f"{path}: not the weights of model {config.name!r}: its sha256 is {digest}, expected "
            f"{known}; fetch it again, or use it by its path with --model PATH"
        )
    return digest


def require_architecture(path: Path, config: ModelConfig | None, found: Architecture) -> None:
    """Raise WeightsError unless a file's names and shapes are those of the model it goes by."""
    if config is not None and config.architecture not in (None, found):
        raise WeightsError(
            f"{path}: not the weights of model {config.name!r}: its tensors are those of {found}, "
            f"expected {config.architecture}; fetch it again, or use it by its path with --model PATH"
        )


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as `sha256sum` prints it. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def checkpoint_space(path: Path, architecture: Architecture, card: Card | None) -> SpaceSpec:
    """The latent space of a checkpoint: what its card says, else what the reference's has."""
    channels = architecture.latent_channels
    irreps = (card.irreps if card else None) or conventional_irreps(channels)
    if irreps.dim != channels:
        raise WeightsError(
            f"{path}: its card says {irreps}, but its latent has {channels} channels"
        )
    clamp = card.clamp if card and card.clamp else SpaceSpec.clamp
    return SpaceSpec(channels, architecture.downsampling_factor, irreps, clamp)


def space_of(name: str, digest: str, space: SpaceSpec) -> LatentSpace:
    """A model's space with its name and the sha256 of its weights."""
    return LatentSpace(name, digest, space.downsampling_factor, space.irreps, space.clamp)
