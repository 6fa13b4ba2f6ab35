"""The losses. Pictures [B, 3, H, W] in [-1, 1], latents [B, C, h, w]; each returns a scalar.

All are invariant under flips of their arguments, so exact equivariance costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
from torch import Tensor
from torch.nn import functional as F

from auravae_cli.train.recipe import LossWeights

BANDS = 2
_MARGIN = 0.1  # by which a reconstruction may score below its picture
SMOOTH = 1e-3  # below this length, chroma's error counts less; a root has no gradient at zero


def high_frequency(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error of the finest bands of the Laplacian pyramid (Burt, Adelson 1983).

    L1 and MSE are dominated by large areas; this keeps edges and lettering sharp.
    """
    error, total = image - target, torch.zeros((), device=image.device)
    for _ in range(BANDS):
        coarse = F.avg_pool2d(error, 2)
        total = total + (error - F.interpolate(coarse, error.shape[-2:])).abs().mean()
        error = coarse
    return total


def chroma(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean length of the error's chroma, (Cb, Cr) of BT.601, which treats all hues alike.

    In RGB, most of an error is brightness, and small coloured details turn brown.
    """
    red, green, blue = (image - target).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    squares = ((blue - luma) / 1.772).square() + ((red - luma) / 1.402).square()
    return (squares + SMOOTH**2).sqrt().mean() - SMOOTH


def mean_colour(image: Tensor, target: Tensor) -> Tensor:
    """Return the error of the mean colour of a picture, averaged over pictures and channels.

    The eye sees a tint of a large area long before any other loss does.
    """
    return (image - target).mean((2, 3)).abs().mean()


def anchor(latent: Tensor) -> Tensor:
    """Return the mean square of the log-variance of every channel, which keeps deviations near 1.

    With multiplicative noise, no other loss depends on the latent's scale: the reference's mean
    z^2 would only shrink it.
    """
    variance = latent.var((0, 2, 3))
    return (variance + 1e-6).log().square().mean()


def uniform(latent: Tensor, images: Tensor) -> Tensor:
    """Return the variance within each channel of the latents of pictures of one colour; 0 if there are none.

    Their latents differ only towards the borders, and so do those of photographs: a frame, which is seen
    in crops of latents.
    """
    is_flat = (images.amax((2, 3)) == images.amin((2, 3))).all(1)
    return latent[is_flat].var((2, 3)).mean() if is_flat.any() else latent.new_zeros(())


def reconstruction_losses(
    image: Tensor,
    target: Tensor,
    latent: Tensor,
    weights: LossWeights,
    lpips: Callable[[Tensor, Tensor], Tensor] | None,
    lpips_share: float = 1.0,
) -> dict[str, Tensor]:
    """Return every loss of positive weight except ``uniform`` and ``gan``, by name, unweighted.

    ``mse`` is always included, since the log derives the PSNR from it. LPIPS is computed on the first
    pictures, a share ``lpips_share`` of the batch.
    """
    losses = {"mse": (image - target).square().mean()}
    if weights.l1:
        losses["l1"] = (image - target).abs().mean()
    if weights.lpips and lpips:
        count = max(1, round(lpips_share * len(image)))
        losses["lpips"] = lpips(image[:count], target[:count]).mean()
    if weights.high_frequency:
        losses["high_frequency"] = high_frequency(image, target)
    if weights.chroma:
        losses["chroma"] = chroma(image, target)
    if weights.mean_colour:
        losses["mean_colour"] = mean_colour(image, target)
    if weights.anchor:
        losses["anchor"] = anchor(latent)
    return losses


def weighted_sum(losses: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """Return the sum to minimise."""
    factors = asdict(weights)
    return torch.stack([factors[name] * value for name, value in losses.items()]).sum()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the binary cross-entropy of the discriminator's logits (the reference's)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return how far reconstructions score below the pictures (the reference's loss, hinged)."""
    return F.relu(real.detach() - fake - _MARGIN).mean()
