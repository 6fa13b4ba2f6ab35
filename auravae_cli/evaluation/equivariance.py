"""Measure how far one picture is from equivariance for each flip, and check what must be exact.

::

    x --E--> E(x) --g--> gE(x)      against      x --g--> gx --E--> E(gx)
    z --D--> D(z) --g--> gD(z)      against      z --g--> gz --D--> D(gz)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.evaluation.parities import Products, SignedPermutation
from auravae_cli.images.prepare import PreparedImage
from auravae_cli.images.read import Pixels, from_unit, to_8_bit
from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.model.codec import Codec
from auravae_cli.symmetry.action import act, act_on_base, act_on_pixels
from auravae_cli.symmetry.group import GROUP, GroupElement

ELEMENTS = GROUP[1:]
SAME = 1e-6  # relative error: a permutation has to be better by more to be another
BAND_CELLS = 2  # width of the border, which depends on padding and is measured separately
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """A picture and the model's results for it.

    ``latent`` is the encoder's [C, h, w] in float32, ``stored`` the same as in a file, ``decoded`` the
    decoder's [3, H', W'] of the stored latent.
    """

    image: PreparedImage
    latent: Floats
    stored: LatentFile
    decoded: Floats


def measure_flips(codec: Codec, items: Sequence[Encoded]) -> list[dict[str, Any]]:
    """Return the numbers of each picture, all of one size, as JSON types. Raises ComputeError."""
    rows: list[dict[str, Any]] = [
        {"action_exact": action_is_exact(item), "preparation_exact": True} for item in items
    ]
    for g in ELEMENTS:
        flipped = [_prepare_flipped(codec, item.image, g) for item in items]
        expected = [act_on_base(g, item.image.padded) for item in items]
        encoded = codec.encode_unit(np.stack([image.padded for image in flipped]))
        decoded = codec.decode_finite(
            np.stack([act(g, item.stored.to_float32(), codec.space.irreps) for item in items])
        )
        for i, item in enumerate(items):
            exact = bool(np.array_equal(flipped[i].padded, expected[i]))
            alone = encoded[i]  # the same run, if the files' pictures equal the model's
            if not exact:
                alone = codec.encode_unit(np.ascontiguousarray(expected[i])[None])[0]
            rows[i]["preparation_exact"] &= preparation_is_exact(codec, item.image, g)
            rows[i][str(g)] = {
                **_encoder(codec, item, g, alone),
                "encoder_error_of_files": _error(encoded[i] - _acted(codec, item, g), item.latent),
                **_decoder(item, g, decoded[i], codec.space.downsampling_factor * BAND_CELLS),
                **_best(codec, item, g, alone, decoded[i]),
            }
    return rows


def action_is_exact(item: Encoded) -> bool:
    """Return whether the laws of the group hold for the bytes of the latent's file, in every type.

    The values are also compared with the definition, since doing nothing obeys the laws, too.
    """
    irreps = item.stored.space.irreps
    for dtype in STORED_DTYPES.values():
        file = replace(item.stored, values=dtype.from_float32(item.latent), dtype=dtype)
        orbit = {g: file.act(g) for g in GROUP}
        written = {g: flipped.to_bytes() for g, flipped in orbit.items()}
        if any(orbit[g].act(f).to_bytes() != written[f @ g] for f, g in product(GROUP, repeat=2)):
            return False
        values = dtype.to_float32(file.values)
        for g, flipped in orbit.items():
            signs = np.array(irreps.signs(g), np.float32)[:, None, None]
            expected = np.flip(values, g.axes) * signs
            if not np.array_equal(dtype.to_float32(flipped.values), expected):
                return False
    return True


def preparation_is_exact(codec: Codec, image: PreparedImage, g: GroupElement) -> bool:
    """Return whether framing and padding commute with ``g``, for the picture and for parts of it.

    What is cut off depends on the size, so a few pictures cover every remainder.
    """
    pixels, factor = image.loaded.pixels, codec.space.downsampling_factor
    rows, columns = (side % factor + 1 for side in pixels.shape[:2])
    variants = [pixels]
    if (
        image.preparation.crop is None and image.preparation.center_crop is None
    ):  # otherwise it might not fit
        variants.append(pixels[rows:, columns:])
    return all(
        _commutes(replace(image, loaded=replace(image.loaded, pixels=variant)), factor, g)
        for variant in variants
        if variant.size
    )


def _commutes(image: PreparedImage, factor: int, g: GroupElement) -> bool:
    mirrored = act_on_pixels(g, image.loaded.pixels)
    if np.array_equal(mirrored, image.loaded.pixels):
        return True  # its own mirror image, whose odd row of padding can only be on one side
    plain, flipped = (
        image.preparation.apply(replace(image.loaded, pixels=pixels), factor)
        for pixels in (image.loaded.pixels, mirrored)
    )
    same = np.array_equal(flipped.padded, act_on_base(g, plain.padded))
    return bool(same) and flipped.padding == plain.padding.act(g)


def _prepare_flipped(codec: Codec, image: PreparedImage, g: GroupElement) -> PreparedImage:
    """Return the mirrored picture, prepared like its file would be."""
    loaded = replace(image.loaded, pixels=act_on_pixels(g, image.loaded.pixels))
    return image.preparation.apply(loaded, codec.space.downsampling_factor)


def _acted(codec: Codec, item: Encoded, g: GroupElement) -> Floats:
    return act(g, item.latent, codec.space.irreps)


def _encoder(codec: Codec, item: Encoded, g: GroupElement, found: Floats) -> dict[str, Any]:
    """Return |E(gx) - gE(x)| / |E(x)| of the whole, the border and the inside, and two controls."""
    plain = item.latent
    difference = found - _acted(codec, item, g)
    wrong, whole = _split(difference, BAND_CELLS), _split(act_on_base(g, plain), BAND_CELLS)
    border, inside = (
        (part / of) ** 0.5 if of else None for (part, _), (of, _) in zip(wrong, whole, strict=True)
    )
    return {
        "encoder_error": _error(difference, plain),
        "encoder_error_border": border,
        "encoder_error_inside": inside,
        "encoder_error_without_signs": _error(found - act_on_base(g, plain), plain),
        "encoder_error_without_flip": _error(found - plain, plain),
    }


def _decoder(item: Encoded, g: GroupElement, found: Floats, band: int) -> dict[str, Any]:
    """Return the mean squares behind PSNR(D(gz), gD(z)) and both halves of the flip gap.

    ``decoder_mse`` is that of the clipped floating-point decodes, as a share of the squared data range;
    the others are those of 8-bit pixels.
    """
    record = item.stored.records[0]
    height, width = record.image_size
    inner = (slice(None), *record.padding.inner(height, width))
    moved = (slice(None), *record.padding.act(g).inner(height, width))
    plain, flipped = item.decoded[inner], found[moved]
    clipped = np.clip(flipped, -1, 1) - act_on_base(g, np.clip(plain, -1, 1))
    original = to_8_bit(item.image.pixels)
    straight = _difference(from_unit(plain), original)
    turned = _turned(item, g, found)
    return {
        "decoder_error": _error(flipped - act_on_base(g, plain), plain),
        "decoder_mse": _mean_squares(clipped / 2, band),
        "plain_mse": _mean_squares(straight, band),
        "flipped_mse": _mean_squares(turned, band),
    }


def _best(
    codec: Codec, item: Encoded, g: GroupElement, found: Floats, decoded: Floats
) -> dict[str, Any]:
    """Return what the best signed permutation of channels is found from, and the mean square of the decode
    by that of this picture alone, a bound of what any could reach."""
    mirrored = act_on_base(g, item.latent)
    products = Products.of(found, mirrored)
    declared = SignedPermutation.of_signs(codec.space.irreps.signs(g))
    best = products.best()
    if products.error(best) < products.error(declared) - SAME:
        moved = best.act(act_on_base(g, item.stored.to_float32()))
        (decoded,) = codec.decode_finite(np.ascontiguousarray(moved)[None])
    turned = _turned(item, g, decoded)
    return {"products": products.to_json(), "best_mse": _mean(*_total(turned))}


def _turned(item: Encoded, g: GroupElement, decoded: Floats) -> NDArray[np.float64]:
    """Return the difference of a decode of a flipped latent, as 8-bit picture, from the flipped original."""
    record = item.stored.records[0]
    moved = (slice(None), *record.padding.act(g).inner(*record.image_size))
    return _difference(from_unit(decoded[moved]), act_on_pixels(g, to_8_bit(item.image.pixels)))


def _total(difference: NDArray[np.float64]) -> tuple[float, int]:
    return float(np.square(difference).sum()), difference.size


def _error(difference: Floats, reference: Floats) -> float:
    """Return the norm of a difference relative to the reference's; 0 if both are 0."""
    part, whole = (float(np.linalg.norm(a.astype(np.float64))) for a in (difference, reference))
    return part / whole if whole else part


def _difference(image: Pixels, reference: Pixels) -> NDArray[np.float64]:
    return ((image.astype(np.float64) - reference) / 255).transpose(2, 0, 1)


def _mean_squares(difference: NDArray[Any], band: int) -> dict[str, float | None]:
    border, inside = _split(difference, band)
    return {
        "whole": _mean(border[0] + inside[0], border[1] + inside[1]),
        "border": _mean(*border),
        "inside": _mean(*inside),
    }


def _mean(total: float, number: int) -> float | None:
    return total / number if number else None


def _split(array: NDArray[Any], band: int) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return the sum of squares and the number of values of [C, H, W] in the border, and inside it."""
    squares = np.square(array, dtype=np.float64)
    inside = squares[:, band:-band, band:-band]
    total, inner = float(squares.sum()), float(inside.sum())
    return (max(total - inner, 0.0), squares.size - inside.size), (inner, inside.size)
