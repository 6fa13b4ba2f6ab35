"""The modules that are trained: encoder and decoder in one, and the reference's patch discriminator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.network.layers import AttentionBlock, ResnetBlock
from auravae_cli.model.network.tied import tie_weights
from auravae_cli.symmetry.group import H, Irreps, V
from auravae_cli.train.recipe import Recipe

# The level and the number of a residual block, at the head of its tensors' names.
_BLOCK = re.compile(r"(.+\.block)\.(\d+)\.")


@dataclass(frozen=True)
class Window:
    """A part of a latent, in cells, and of its picture, ``factor`` times as large."""

    top: int
    left: int
    height: int
    width: int
    factor: int

    def of_latent(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] => [B, C, height, width]."""
        return self._cut(latent, 1)

    def of_pixels(self, images: Tensor) -> Tensor:
        """[B, 3, f * h, f * w] => [B, 3, f * height, f * width]."""
        return self._cut(images, self.factor)

    def _cut(self, x: Tensor, f: int) -> Tensor:
        rows, columns = (f * start for start in (self.top, self.left))
        return x[..., rows : rows + f * self.height, columns : columns + f * self.width]


class TrainedAutoencoder(nn.Module):
    """Pixels => latents, clamped => noise, group elements => pixels: the path that is trained.

    ::

        images --encoder--> clamp --> * factors --> g --decoder--> images, flipped by g
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.clamp, self.irreps = recipe.space.clamp, recipe.space.irreps
        self.downsampling_factor = recipe.architecture.downsampling_factor
        self.encoder = Encoder(recipe.architecture)
        self.decoder = Decoder(recipe.architecture)

    def forward(
        self,
        images: Tensor,
        factors: Tensor | None = None,
        flips: Tensor | None = None,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] => their reconstructions and their raw latents.

        Args:
            images: in [-1, 1].
            factors: [B, C, H/f, W/f], what the latents are multiplied by.
            flips: bool [2, B], whether each latent is flipped by h and by v.
            window: the part of the latents that is decoded; all of it where None.
        """
        raw = self.encoder(images)
        latent = raw.clamp(-self.clamp, self.clamp)
        if factors is not None:
            latent = latent * factors
        if flips is not None:
            latent = flip_each(latent, flips, self.irreps)
        if window is not None:
            latent = window.of_latent(latent)
        return self.decoder(latent), raw


def build(recipe: Recipe) -> TrainedAutoencoder:
    """An untrained autoencoder, tied if the recipe says ``exact``. Deterministic in the seed.

    Residual branches start at zero, so the network starts as its short path, which is linear up
    to the last normalisation.
    """
    torch.manual_seed(recipe.seed)
    autoencoder = TrainedAutoencoder(recipe)
    is_tied = recipe.equivariance == "exact"
    with torch.no_grad():
        for module in autoencoder.modules():
            if isinstance(module, nn.Conv2d) and is_tied:
                module.weight.mul_(2)  # the mean over four independent copies halves it again
            elif isinstance(module, ResnetBlock):
                nn.init.zeros_(module.conv2.weight)
                nn.init.zeros_(module.conv2.bias)  # type: ignore[arg-type]
            elif isinstance(module, AttentionBlock):
                nn.init.zeros_(module.proj_out.weight)
    if is_tied:
        tie_weights(autoencoder, recipe.space.irreps)
    return autoencoder


def with_blocks(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add to ``weights`` the residual blocks of ``own`` that follow the last ones of their levels.

    In an untrained network a block is the identity, so one with more blocks starts as the smaller one.
    """
    last: dict[str, int] = {}
    for match in filter(None, map(_BLOCK.match, weights)):
        last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    added = {
        name: tensor
        for name, tensor in own.items()
        if (block := _BLOCK.match(name)) and int(block[2]) > last.get(block[1], int(block[2]))
    }
    return dict(weights) | added


def flip_each(batch: Tensor, flips: Tensor, irreps: Irreps) -> Tensor:
    """A group element a sample: [B, C, h, w], flipped by h and v where ``flips`` [2, B] says so."""
    for g, chosen in zip((H, V), flips, strict=True):
        signs = torch.tensor(irreps.signs(g), dtype=batch.dtype, device=batch.device)
        batch = torch.where(
            chosen[:, None, None, None], batch.flip(g.axes) * signs[:, None, None], batch
        )
    return batch


def build_discriminator() -> nn.Module:
    """The reference's (``utils.py``): four strided convolutions, one logit a patch."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for width in (64, 128):
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), nn.GroupNorm(8, 2 * width)]
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(256, 1, 4, 2, 1))
