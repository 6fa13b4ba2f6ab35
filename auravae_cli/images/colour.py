"""Convert colours that are declared by numbers to sRGB: primaries and a transfer curve.

The numbers are those of ITU-T H.273, as in AVIF, HEIC, JPEG XL and PNG (cICP), or PNG's cHRM and gAMA.
Curves of video (BT.709, BT.601, BT.2020) are read as sRGB's, as in browsers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import InputImageError

_D65 = (0.3127, 0.3290)
_SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)
_P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)

# H.273, table 2: red, green, blue and white, x and y of each
PRIMARIES: dict[int, tuple[str, tuple[float, ...]]] = {
    1: ("BT.709", _SRGB),
    4: ("BT.470 M", (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316)),
    5: ("BT.470 BG", (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65)),
    6: ("SMPTE 170M", (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65)),
    7: ("SMPTE 240M", (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65)),
    8: ("film", (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316)),
    9: ("BT.2020", (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65)),
    11: ("DCI-P3", (*_P3, 0.314, 0.351)),
    12: ("Display P3", (*_P3, *_D65)),
    22: ("EBU 3213", (0.63, 0.34, 0.295, 0.605, 0.155, 0.077, *_D65)),
}
_UNSPECIFIED = 2
_SRGB_CURVES = (1, 2, 6, 11, 12, 13, 14, 15)
_LIGHT = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class Colours:
    """A file's declared colours: an ICC profile, or numbers; neither means sRGB.

    ``primaries`` are x and y of red, green, blue and white; ``curve`` is "srgb" or an exponent.
    """

    icc: bytes | None = None
    name: str = "sRGB"
    primaries: tuple[float, ...] = _SRGB
    curve: float | str = "srgb"

    def change(self, is_grey: bool = False) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """Return what converts [H, W, 1 or 3], uint8 or uint16, to sRGB of the same type; None if it is sRGB."""
        if self.primaries == _SRGB and self.curve == "srgb":
            return None
        primaries = _SRGB if is_grey else self.primaries
        near = np.allclose(primaries, _SRGB, atol=0.002)
        if near and (self.curve == "srgb" or _is_like_srgb(self.curve)):
            return None
        matrix = np.eye(3) if near else np.linalg.inv(_to_xyz(_SRGB)) @ _to_xyz(primaries)
        return lambda pixels: _changed(pixels, self.curve, matrix)


def by_numbers(primaries: int, transfer: int) -> Colours:
    """Return the colours of H.273's numbers. Raises InputImageError for those that sRGB cannot show."""
    if transfer in _LIGHT:
        raise InputImageError(
            f"a picture of high dynamic range ({_LIGHT[transfer]}): it has no sRGB colours until it "
            "is tone-mapped; save it for ordinary screens first"
        )
    curves: dict[int, float | str] = dict.fromkeys(_SRGB_CURVES, "srgb")
    curves |= {4: 2.2, 5: 2.8, 8: 1.0}
    primaries = 1 if primaries == _UNSPECIFIED else primaries
    if primaries not in PRIMARIES or transfer not in curves:
        raise InputImageError(
            f"colours of primaries {primaries} and transfer {transfer} (H.273): convert it to sRGB first"
        )
    name, places = PRIMARIES[primaries]
    curve = curves[transfer]
    if curve != "srgb":
        name += " (linear)" if curve == 1 else f" (gamma {curve})"
    return Colours(None, name, places, curve)


def by_gamma(curve: float | str | None, primaries: tuple[float, ...] | None) -> Colours:
    """Return the colours of a decoding exponent (or "srgb") and primaries, as in PNG's gAMA and cHRM.

    Impossible primaries are ignored. Without a curve it is sRGB's, or a screen's.
    """
    is_ours = primaries is None or not _is_possible(primaries)
    places: tuple[float, ...] = _SRGB if is_ours or primaries is None else primaries
    if curve is None:
        curve = "srgb" if is_ours else 2.2
    name = "sRGB's curve" if curve == "srgb" else f"gamma {curve:.3g}"
    return Colours(None, f"declared primaries and {name}", places, curve)


def _is_like_srgb(curve: float | str) -> bool:
    return isinstance(curve, float | int) and abs(curve - 2.2) < 0.03


def _is_possible(primaries: tuple[float, ...]) -> bool:
    if min(primaries[1::2]) <= 0 or max(primaries) > 1:
        return False
    with np.errstate(all="ignore"):
        try:
            return bool(np.isfinite(np.linalg.inv(_to_xyz(primaries))).all())
        except np.linalg.LinAlgError:
            return False


def _to_xyz(places: tuple[float, ...]) -> NDArray[np.float64]:
    """Return linear RGB => XYZ with the white of D65, adapted by Bradford's method."""
    x, y = np.array(places).reshape(4, 2).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    matrix = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
    white = np.array([_D65[0] / _D65[1], 1, (1 - sum(_D65)) / _D65[1]])
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    adapted = np.diag((cone @ white) / (cone @ xyz[:, 3]))
    return np.asarray(np.linalg.inv(cone) @ adapted @ cone @ matrix)


def _changed(pixels: NDArray[Any], curve: float | str, matrix: NDArray[np.float64]) -> NDArray[Any]:
    light = _light(curve, pixels.dtype.itemsize)[pixels]
    if pixels.shape[2] == 3:
        light = light @ matrix.T.astype(np.float32)
    top = np.iinfo(pixels.dtype).max
    return np.asarray(np.rint(encode_srgb(light) * top).astype(pixels.dtype))


@lru_cache(8)
def _light(curve: float | str, width: int) -> NDArray[np.float32]:
    """Return the linear light of every level of ``width`` bytes."""
    levels = np.linspace(0, 1, 256**width)
    if curve == "srgb":
        light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    else:
        light = levels ** float(curve)
    return light.astype(np.float32)


def encode_srgb(light: NDArray[Any]) -> NDArray[Any]:
    """Convert linear light => sRGB values of 0 to 1, clipped."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
