"""The latent space of a model, without loading it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
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


@dataclass(frozen=True)
class LocatedModel:
    """A model whose weights are on this machine, and what is known before it is loaded.

    ``config`` is that of a known name.
    """

    name: str
    path: Path
    sha256: str
    config: ModelConfig | None

    @cached_property
    def card(self) -> Card | None:
        """The card of its weights, if there is one. Raises WeightsError if it is damaged."""
        return read_card(self.path)

    @property
    def is_tied(self) -> bool:
        """Whether its weights are exactly equivariant, and stored as such."""
        return self.card is not None and self.card.is_tied

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear model, and not a network."""
        origin = self.config or self.card
        return origin is not None and origin.kind == "linear"

    def space(self, architecture: Architecture | None = None) -> LatentSpace:
        """Return the space of its latents; for a network without a config, from its ``architecture``.

        Raises WeightsError if its card contradicts that.
        """
        if self.config is not None:
            space = self.config.space
        else:
            space = SpaceSpec() if architecture is None else self._space_by_card(architecture)
        return LatentSpace(
            self.name, self.sha256, space.downsampling_factor, space.irreps, space.clamp
        )

    def _space_by_card(self, architecture: Architecture) -> SpaceSpec:
        """Return what its card says, or what the reference has."""
        channels, card = architecture.latent_channels, self.card
        irreps = (card.irreps if card else None) or conventional_irreps(channels)
        if irreps.dim != channels:
            raise WeightsError(
                f"{self.path}: its card says {irreps}, but its latent has {channels} channels"
            )
        clamp = card.clamp if card and card.clamp else SpaceSpec.clamp
        return SpaceSpec(channels, architecture.downsampling_factor, irreps, clamp)


def locate(model: str) -> LocatedModel:
    """Locate a model by its name or its checkpoint's path; this computes the sha256 of its weights.

    Raises:
        WeightsError: there is no such model, its weights are not on this machine, or they are others.
    """
    path, config = find_weights(model)
    digest = weights_sha256(path, config)
    return LocatedModel(config.name if config else path.stem, path, digest, config)


def read_space(model: str) -> LatentSpace:
    """Return the space of a model's latents, by its name or its checkpoint's path.

    Raises:
        WeightsError: like `locate`, or the weights are damaged.
    """
    located = locate(model)
    if located.config is not None or located.is_linear:
        return located.space()
    from auravae_cli.model.checkpoints.read import read_checkpoint

    shapes = {name: tensor.shape for name, tensor in read_checkpoint(located.path).state.items()}
    architecture = Architecture.from_shapes(shapes)
    if architecture is None:
        raise WeightsError(
            f"{located.path}: no AuraEquiVAE checkpoint: {len(shapes)} tensors, whose shapes do not fit it"
        )
    return located.space(architecture)


def weights_sha256(path: Path, config: ModelConfig | None) -> str:
    """Return the sha256 of a weights file. Raises WeightsError if it is not the named model's."""
    digest = file_sha256(path)
    if config is not None and config.sha256 and digest not in config.sha256:
        known = ", ".join(config.sha256)
        raise WeightsError(
            f"{path}: not the weights of model {config.name!r}: its sha256 is {digest}, expected "
            f"{known}; fetch it again, or use it by its path with --model PATH"
        )
    return digest


def require_architecture(path: Path, config: ModelConfig | None, found: Architecture) -> None:
    """Raise WeightsError unless a file's names and shapes are those of the named model."""
    if config is not None and config.architecture not in (None, found):
        raise WeightsError(
            f"{path}: not the weights of model {config.name!r}: its tensors are those of {found}, "
            f"expected {config.architecture}; fetch it again, or use it by its path with --model PATH"
        )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, as `sha256sum` prints it. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
