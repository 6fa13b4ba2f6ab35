"""A start in closed form: the short path of an untrained network, fitted to the linear model.

Residual branches start at zero, so what is left of the network is a chain of convolutions with one
normalisation before the last of each half. Each convolution is fitted by least squares: to the
principal components of windows of the picture at its resolution, the last ones to the latent of
the `linear` model and to the picture. A network so started is a few dB below the linear model;
from a random start it takes thousands of steps to come as far.

The normalisation before the last convolution would take brightness and contrast away. It passes
them where the channels of a group are a constant, then pairs of a signal and its negative: their
mean does not depend on the signals, their variance hardly, and x * sigmoid(x) of a signal less
that of its negative is the signal. A group therefore needs three channels, so the decoder's last
width must be 96 at least: with two, no weights at all can tell a bright picture from a dark one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.codec import load_codec
from auravae_cli.group import GROUP, PARITIES, H, V, character
from auravae_cli.model.autoencoder import Decoder, Encoder
from auravae_cli.model.layers import NORM_GROUPS
from auravae_cli.model.tied import assign
from auravae_cli.train.networks import TrainedAutoencoder

LEVEL = 32.0  # of the constant channels; the signals have a standard deviation of about 1
RIDGE = 1e-5  # of the least squares, relative to the mean of the inputs' squares


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
    x = _fit(
        encoder.conv_in, images, _window_components(images, 1, 3, encoder.conv_in.out_channels)
    )
    level: Any
    for level, cell in zip(encoder.down, (2, 4, 8, 8), strict=False):
        x = _pass_on(level.block, x, level is encoder.down[-1])
        if hasattr(level, "downsample"):
            conv = level.downsample.conv
            window = 2 * cell if cell == 2 else cell
            x = _fit(conv, x, _window_components(images, cell, window, conv.out_channels), stride=2)
    x = _linearise(encoder.mid.block_2, encoder.norm_out, x)
    _fit(encoder.conv_out, x, latents)


def _fit_decoder(decoder: Decoder, images: Tensor, latents: Tensor) -> None:
    x = _fit(
        decoder.conv_in, latents, _window_components(images, 8, 24, decoder.conv_in.out_channels)
    )
    level: Any
    for level, cell, window in zip(reversed(decoder.up), (4, 2, 1, 1), (12, 6, 5, 5), strict=False):
        x = _pass_on(level.block, x, level is decoder.up[0])
        if hasattr(level, "upsample"):
            conv = level.upsample.conv
            x = F.interpolate(x, scale_factor=2.0)
            x = _fit(conv, x, _window_components(images, cell, window, conv.out_channels))
    last: Any = decoder.up[0]
    x = _linearise(last.block[-1], decoder.norm_out, x)
    _fit(decoder.conv_out, x, images)


def _window_components(images: Tensor, cell: int, window: int, channels: int) -> Tensor:
    """The principal components of the windows around every cell, in the regular representation.

    [B, 3, H, W] => [B, channels, H/cell, W/cell]; a quarter of the channels for each parity, the
    first ones the strongest. Each is divided by the root of its standard deviation: half-way to
    equal strength.
    """
    padding = (window - cell) // 2
    padded = F.pad(images, (padding,) * 4, mode="replicate")
    count = channels // len(GROUP)
    sample = F.unfold(padded[:: max(1, len(images) // 32)], window, stride=cell).transpose(0, 1)
    sample = sample.flatten(1)[:, :: max(1, sample[0].numel() // 50_000)]
    sample = sample.view(3, window, window, -1)
    parts = []
    for parity in PARITIES:
        part = torch.stack(
            [character(parity, g) * sample.flip([axis + 3 for axis in g.axes]) for g in GROUP]
        ).mean(0)
        flat = part.flatten(0, 2)
        variances, vectors = torch.linalg.eigh((flat @ flat.T / flat.shape[1]).double())
        order = variances.argsort(descending=True)[:count]
        order = order[variances[order] > 1e-6]
        filters = (vectors[:, order] * variances[order] ** -0.25).T.float()
        components = F.conv2d(padded, filters.reshape(-1, 3, window, window), stride=cell)
        parts.append(F.pad(components, (0, 0, 0, 0, 0, count - len(order))))
    signs = torch.tensor([[character(parity, g) for parity in PARITIES] for g in GROUP]).float()
    regular = torch.einsum("gp,pbchw->bgchw", signs, torch.stack(parts)).flatten(1, 2)
    return regular / regular.square().mean().sqrt()


def _fit(conv: nn.Conv2d, x: Tensor, target: Tensor, stride: int = 1) -> Tensor:
    """Set a convolution's weight and bias by least squares; its output."""
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
    """Let the blocks pass the strongest channels on; the last ones as pairs, for `_linearise`."""
    for block in blocks:
        shortcut: Any = getattr(block, "nin_shortcut", None)
        if shortcut is None:
            continue
        width_in, width_out = shortcut.in_channels // 4, shortcut.out_channels // 4
        slots = (
            _pairs(4 * width_out // NORM_GROUPS) if is_last else [(i,) for i in range(width_out)]
        )
        weight = torch.zeros(4, width_out, 4, width_in)
        for source, pair in zip(range(width_in), slots, strict=False):
            for slot, sign in zip(pair, (1, -1), strict=False):
                for element in range(4):
                    weight[element, slot, element, source] = sign
        assign(shortcut, "weight", weight.reshape(4 * width_out, 4 * width_in, 1, 1))
        assign(shortcut, "bias", torch.zeros(4 * width_out))
        x = shortcut(x)
    return x


def _pairs(group: int) -> list[tuple[int, int]]:
    """The channels, within a block of the regular representation, of a signal and its negative.

    One pair a group first, so that the strongest signals share a group with the weakest.
    """
    starts = range(0, NORM_GROUPS // 4 * group, group)
    return [(s + first, s + first + 1) for first in range(1, group - 1, 2) for s in starts]


def _linearise(block: Any, norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Add the constant channels to what ``block`` gives out; what then reaches the convolution."""
    group = norm.num_channels // NORM_GROUPS
    is_constant = torch.arange(norm.num_channels) % group == 0
    levels = LEVEL * is_constant
    mean, deviation = LEVEL / group, LEVEL * (group - 1) ** 0.5 / group  # of a group without signal
    assign(block.conv2, "bias", levels)
    assign(norm, "weight", torch.where(is_constant, 1.0, deviation))
    assign(norm, "bias", torch.where(is_constant, 0.0, mean))
    return F.silu(norm(x + levels[:, None, None]))
