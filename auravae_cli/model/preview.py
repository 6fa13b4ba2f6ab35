"""Latents as pictures, without the model: a preview in colours, and a map of each channel.

Both are computed cell by cell, from values and from statistics that do not depend on the order of the
cells. Therefore they commute with the group exactly: a flip of the latent is a flip of the picture,
except that maps of odd channels also exchange their two colours. Needs only numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from auravae_cli.images.read import Pixels, from_unit
from auravae_cli.latents.latent_file import LatentFile, LatentSpace
from auravae_cli.model.spec.config import Preview
from auravae_cli.model.spec.registry import known_models
from auravae_cli.symmetry.group import Irreps

Floats = NDArray[np.float32]

NEGATIVE, ZERO, POSITIVE = (33, 102, 172), (242, 240, 235), (178, 24, 43)  # blue, paper, red
_SHOWN_SHARE = 0.995  # share of values within the range of the maps' colours


def find_preview(space: LatentSpace) -> Preview | None:
    """Return the fitted preview of a latent space; None if its weights have none."""
    previews = (config.preview for config in known_models().values())
    fits = (p for p in previews if p and p.weights_sha256 == space.weights_sha256)
    return next(fits, None)


def latent_colours(latent: Floats, space: LatentSpace) -> tuple[Pixels, bool]:
    """Return a latent [C, h, w] as a picture [h, w, 3], and whether its colours are those of the pixels.

    They are if the weights have a fitted preview; otherwise they are principal components.
    """
    preview = find_preview(space)
    if preview is None:
        return component_colours(latent, space.irreps), False
    return preview_colours(latent, space.irreps, preview), True


def preview_colours(latent: Floats, irreps: Irreps, preview: Preview) -> Pixels:
    """Return the fitted mean colour of the pixels of each cell: uint8 [h, w, 3]."""
    colours = np.empty((3, *latent.shape[1:]), np.float32)
    rows = (preview.red, preview.green, preview.blue)
    for place, (offset, weights) in enumerate(zip(preview.offset, rows, strict=True)):
        colours[place] = offset
        for channel, weight in zip(irreps.even_channels, weights, strict=True):
            # the same order of additions for every cell
            colours[place] += np.float32(weight) * latent[channel]
    return from_unit(colours)


def component_colours(latent: Floats, irreps: Irreps) -> Pixels:
    """Return the first three principal components of the ``ee`` channels as red, green, blue.

    Each is centred on grey and spans three deviations either way. uint8 [h, w, 3].
    """
    even = latent[list(irreps.even_channels)].astype(np.float64)
    cells = even.reshape(len(even), -1)
    cells = cells[:, np.lexsort(cells)]  # sorted, which is independent of flips
    mean = cells.mean(axis=1)
    centred = cells - mean[:, None]
    _, vectors = np.linalg.eigh(centred @ centred.T / max(1, cells.shape[1]))
    colours = np.zeros((3, *latent.shape[1:]), np.float32)
    for plane, vector in zip(colours, vectors.T[::-1][:3], strict=False):
        sign = (
            -1 if vector[np.abs(vector).argmax()] < 0 else 1
        )  # eigenvectors have no sign: fix one
        component = np.zeros(latent.shape[1:])
        for weight, values, middle in zip(sign * vector, even, mean, strict=True):
            component += weight * (values - middle)
        deviation = np.sqrt(np.square(np.sort(component, axis=None)).mean()) or 1
        plane[:] = component / (3 * deviation)
    return from_unit(colours)


def map_range(latent: Floats) -> float:
    """Return the value at which maps of a latent's channels reach their full colours."""
    values = np.sort(np.abs(latent), axis=None)
    return float(values[int(_SHOWN_SHARE * (values.size - 1))]) or 1.0


def channel_map(channel: Floats, top: float, in_grey: bool = False) -> Pixels:
    """Return a channel [h, w] from blue (``-top``) over paper (0) to red (``top``): uint8 [h, w, 3].

    With ``in_grey``, from black to white.
    """
    share = np.clip(channel / np.float32(top), -1, 1)[..., None]
    if in_grey:
        grey: Pixels = np.rint(127.5 + 127.5 * share).astype(np.uint8).repeat(3, axis=2)
        return grey
    zero = np.array(ZERO, np.float32)
    up, down = (np.array(colour, np.float32) - zero for colour in (POSITIVE, NEGATIVE))
    colours = zero + np.maximum(share, 0) * up + np.maximum(-share, 0) * down
    rounded: Pixels = np.rint(colours).astype(np.uint8)
    return rounded


def enlarged(cells: Pixels, latent: LatentFile) -> Pixels:
    """Return a picture of a latent's cells [h, w, 3] in the exact size of the latent's own picture."""
    factor, record = latent.space.downsampling_factor, latent.records[0]
    whole = cells.repeat(factor, axis=0).repeat(factor, axis=1)
    rows, columns = record.padding.inner(*record.image_size)
    return np.ascontiguousarray(whole[rows, columns])
