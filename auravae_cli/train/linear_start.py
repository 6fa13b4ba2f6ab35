"""A start in closed form: the short path of an untrained network, fitted to the linear model.

Residual branches start at zero, so what remains of the network is a chain of convolutions with one
normalisation before the last of each half. Each convolution is fitted by least squares: to the
principal components of windows of the picture at its resolution, the last ones to the latent of
the `linear` model and to the picture. A network started so is a few dB below the linear model;
from a random start that takes thousands of steps.

The normalisation before the last convolution would remove brightness and contrast. It preserves them
if the channels of a group are a constant, then pairs of a signal and its negative: their mean does
not depend on the signals, their variance hardly does, and x * sigmoid(x) of a signal minus that of
its negative is the signal. A group therefore needs three channels, so the decoder's last width must
be at least 96: with two, no weights can distinguish a bright picture from a dark one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.codec import load_codec
from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.network.tied import assign
from auravae_cli.model.spec.config import NORM_GROUPS
from auravae_cli.symmetry.group import GROUP, PARITIES, H, V, character
from auravae_cli.train.trainable import TrainedAutoencoder

LEVEL = 32.0  # of the constant channels; the signals have a standard deviation of about 1
# The targets of each convolution: cells of some pixels, each described by a window of some pixels.
ENCODER_TARGETS = ((1, 3), (2, 4), (4, 4), (8, 8))
DECODER_TARGETS = ((8, 24), (4, 12), (2, 6), (1, 5))
RIDGE = 1e-5  # of the least squares, relative to the mean square of the inputs


@torch.no_grad()
def warm_start(autoencoder: TrainedAutoencoder, images: Tensor) -> None:
    """Fit the short path on pictures [B, 3, H, W] in [-1, 1], H and W multiples of 8.

    The network must be one of `Recipe` with ``start = "linear"``.
    """
    for g in (H, V):
        images = torch.cat([images, images.flip(g.axes)])
    latents = torch.from_numpy(load_codec("linear").encode(images.numpy()))
    latents = latents / latents.square().mean((0, 2, 3), keepdim=True).sqrt()
    _fit_encoder(autoencoder.encoder, images, latents)
    _fit_decoder(autoencoder.decoder, images, autoencoder.encoder(images))


def _fit_encoder(encoder: Encoder, images: Tensor, latents: Tensor) -> None:
    levels: list[Any] = list(encoder.down)
    x = _fit(encoder.conv_in, images, _components(images, ENCODER_TARGETS[0], encoder.conv_in))
    for (level, following), target in zip(pairwise(levels), ENCODER_TARGETS[1:], strict=True):
        x = _pass_on(level.block, x, is_last=False)
        conv = level.downsample.conv
        wanted = _components(images, target, conv, _needs_pairs(following, levels))
        x = _fit(conv, x, wanted, stride=2)
    x = _pass_on(levels[-1].block, x, is_last=True)
    x = _linearise(encoder.mid.block_2, encoder.norm_out, x)
    _fit(encoder.conv_out, x, latents)


def _fit_decoder(decoder: Decoder, images: Tensor, latents: Tensor) -> None:
    levels: list[Any] = list(reversed(decoder.up))
    x = _fit(decoder.conv_in, latents, _components(images, DECODER_TARGETS[0], decoder.conv_in))
    for (level, following), target in zip(pairwise(levels), DECODER_TARGETS[1:], strict=True):
        x = _pass_on(level.block, x, is_last=False)
        conv = level.upsample.conv
        wanted = _components(images, target, conv, _needs_pairs(following, levels))
        x = _fit(conv, F.interpolate(x, scale_factor=2.0), wanted)
    x = _pass_on(levels[-1].block, x, is_last=True)
    x = _linearise(levels[-1].block[-1], decoder.norm_out, x)
    _fit(decoder.conv_out, x, images)


def _needs_pairs(level: Any, levels: list[Any]) -> bool:
    """Return whether a level gets its input as pairs: the last one, unless its own shortcut makes them."""
    return level is levels[-1] and not hasattr(level.block[0], "nin_shortcut")


def _components(
    images: Tensor, target: tuple[int, int], conv: nn.Conv2d, as_pairs: bool = False
) -> Tensor:
    """Return the target of the output of ``conv``."""
    components = _window_components(images, *target, conv.out_channels)
    return _place(components, conv.out_channels, as_pairs) if as_pairs else components


def _window_components(images: Tensor, cell: int, window: int, channels: int) -> Tensor:
    """Return the principal components of the windows around every cell, in the regular representation.

    [B, 3, H, W] => [B, channels, H/cell, W/cell]; a quarter of the channels for each parity, the
    strongest first. Each is divided by the root of its standard deviation: half-way to equal strength.
    """
    padding = (window - cell) // 2
    padded = F.pad(images, (padding,) * 4, mode="replicate")
    count = channels // len(GROUP)
    sample = F.unfold(padded[:: max(1, len(images) // 32)], window, stride=cell).transpose(0, 1)
    sample = sample.flatten(1)[:, :: max(1, sample[0].numel() // 50_000)]
    sample = sample.view(3, window, window, -1)
    parts = []
    for parity in PARITIES:
        # Coordinates of what has this parity: a quarter of the numbers, so 1/64 of the work.
        down, across = (_half(window, character(parity, g)) for g in (V, H))
        part = torch.einsum("iy,jx,cyxn->cijn", down, across, sample)
        flat = part.flatten(0, 2)
        variances, vectors = torch.linalg.eigh((flat @ flat.T / flat.shape[1]).double())
        order = variances.argsort(descending=True)[:count]
        order = order[variances[order] > 1e-6]
        vectors = vectors[:, order]
        vectors = vectors * vectors.sum(0).sign()  # those of LAPACK are arbitrary
        filters = (vectors * variances[order] ** -0.25).float().view(*part.shape[:3], -1)
        filters = torch.einsum("iy,jx,cijk->kcyx", down, across, filters)
        components = F.conv2d(padded, filters, stride=cell)
        parts.append(F.pad(components, (0, 0, 0, 0, 0, count - len(order))))
    signs = torch.tensor([[character(parity, g) for parity in PARITIES] for g in GROUP]).float()
    regular = torch.einsum("gp,pbchw->bgchw", signs, torch.stack(parts)).flatten(1, 2)
    return regular / regular.square().mean().sqrt()


def _half(length: int, sign: int) -> Tensor:
    """Return an orthonormal basis, in rows, of the vectors of ``length`` that a flip multiplies by ``sign``."""
    identity = torch.eye(length)
    pairs = (identity + sign * identity.flip(0))[: length // 2] / 2**0.5
    middle = identity[length // 2 : length // 2 + length % 2]
    return torch.cat([pairs, middle]) if sign > 0 else pairs


def _fit(conv: nn.Conv2d, x: Tensor, target: Tensor, stride: int = 1) -> Tensor:
    """Set a convolution's weight and bias by least squares; return its output."""
    is_corner = stride == 2
    taps, padding = (2, 0) if is_corner else (3, 1)
    features = x.shape[1] * taps**2
    gram = torch.zeros(features + 1, features + 1, dtype=torch.float64)
    moment = torch.zeros(features + 1, target.shape[1], dtype=torch.float64)
    for image, wanted in zip(x, target, strict=True):
        columns = F.unfold(image[None], taps, padding=padding, stride=stride)[0]
        columns = torch.cat([columns, torch.ones(1, columns.shape[1])])
        gram += columns @ columns.T
        moment += columns @ wanted.flatten(1).T
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, moment).float()
    weight = solution[:-1].T.reshape(-1, x.shape[1], taps, taps)
    if is_corner:
        weight = F.pad(weight, (0, 1, 0, 1))
    assign(conv, "weight", weight)
    assign(conv, "bias", solution[-1])
    output: Tensor = conv(F.pad(x, (0, 1, 0, 1)) if is_corner else x)
    return output


def _pass_on(blocks: nn.ModuleList, x: Tensor, is_last: bool) -> Tensor:
    """Let the blocks' shortcuts pass on the strongest channels; those of the last level, as pairs."""
    for block in blocks:
        shortcut: Any = getattr(block, "nin_shortcut", None)
        if shortcut is not None:
            identity = torch.eye(shortcut.in_channels)[:, :, None, None]
            weight = _place(identity, shortcut.out_channels, as_pairs=is_last).transpose(0, 1)
            assign(shortcut, "weight", weight)
            assign(shortcut, "bias", torch.zeros(shortcut.out_channels))
            x = shortcut(x)
    return x


def _place(x: Tensor, channels: int, as_pairs: bool) -> Tensor:
    """Return the strongest channels of each block of [B, C, H, W], in blocks of another width."""
    blocks = x.unflatten(1, (len(GROUP), -1))
    placed = x.new_zeros(len(x), len(GROUP), channels // len(GROUP), *x.shape[2:])
    if as_pairs:
        for source, (plus, minus) in zip(
            blocks.unbind(2), _pairs(channels // NORM_GROUPS), strict=False
        ):
            placed[:, :, plus], placed[:, :, minus] = source, -source
    else:
        kept = min(placed.shape[2], blocks.shape[2])
        placed[:, :, :kept] = blocks[:, :, :kept]
    return placed.flatten(1, 2)


def _pairs(group: int) -> list[tuple[int, int]]:
    """Return the channels, within a block of the regular representation, of a signal and its negative.

    First one pair per group, so that the strongest signals share a group with the weakest.
    """
    starts = range(0, NORM_GROUPS // 4 * group, group)
    return [(s + first, s + first + 1) for first in range(1, group - 1, 2) for s in starts]


def _linearise(block: Any, norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Add the constant channels to the output of ``block``; return what then reaches the convolution."""
    group = norm.num_channels // NORM_GROUPS
    is_constant = torch.arange(norm.num_channels) % group == 0
    levels = LEVEL * is_constant
    mean, deviation = LEVEL / group, LEVEL * (group - 1) ** 0.5 / group  # of a group without signal
    assign(block.conv2, "bias", levels)
    assign(norm, "weight", torch.where(is_constant, 1.0, deviation))
    assign(norm, "bias", torch.where(is_constant, 0.0, mean))
    return F.silu(norm(x + levels[:, None, None]))
