"""Statistics of latents, channel by channel, as sums that can be added over any number of pictures."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.files.canonical_json import canonical, read_json
from auravae_cli.files.typed import Faults, Positive, table
from auravae_cli.latents.statistics import BINS, ChannelStatistics

Floats = NDArray[np.float64]
_TYPES = {"counts": np.int64, "clamped": np.int64}
_LONGEST = 1 << 24  # bytes of JSON in a results file; 16 channels take 9 kB
_WIDEST = 8.0
_DIGITS = 12  # digits of sums in a results file: far more than any statistic shows


def histogram_span(clamp: float) -> float:
    """Return where histograms end: at the clamp, or at 8 for latents that are hardly clamped or not at all."""
    return min(clamp, _WIDEST)


@dataclass(frozen=True)
class LatentSums:
    """Sums over the values of C channels; all arrays have C rows.

    ``powers`` [C, 4] are the sums of the first to the fourth power, ``products`` [C, C] those of
    pairs of channels in one cell, ``counts`` [C, bins] a histogram over [-span, span] (`histogram_span`),
    ``clamped`` the number of values at the clamp.
    """

    number: int
    powers: Floats
    products: Floats
    counts: NDArray[np.int64]
    clamped: NDArray[np.int64]
    minimum: Floats
    maximum: Floats

    @classmethod
    def of(cls, latent: NDArray[np.float32], clamp: float) -> LatentSums:
        """Return the sums of one latent [C, h, w], whose values must be finite."""
        values = latent.reshape(len(latent), -1).astype(np.float64)
        statistics = ChannelStatistics.empty(len(latent), histogram_span(clamp))
        statistics.add(latent[None])
        return cls(
            values.shape[1],
            np.stack([(values**power).sum(1) for power in (1, 2, 3, 4)], axis=1),
            values @ values.T,
            statistics.counts,
            (np.abs(values) >= clamp).sum(1),
            statistics.minimum,
            statistics.maximum,
        )

    def __add__(self, other: LatentSums) -> LatentSums:
        return LatentSums(
            self.number + other.number,
            self.powers + other.powers,
            self.products + other.products,
            self.counts + other.counts,
            self.clamped + other.clamped,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    def to_text(self) -> str:
        """Return compressed JSON for a results file, two kilobytes for sixteen channels."""
        content = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return base64.b64encode(zlib.compress(canonical(content))).decode()

    @classmethod
    def from_text(cls, text: str) -> LatentSums:
        """Parse the result of `to_text`. Raises ValueError."""
        try:
            content = zlib.decompressobj().decompress(base64.b64decode(text), _LONGEST)
        except zlib.error as error:
            raise ValueError(f"no statistics of latents: {error}") from error
        found = _read(read_json(content))
        number, channels = found.pop("number"), len(found["powers"])
        arrays: dict[str, Any] = {
            name: np.array(rows, _TYPES.get(name, np.float64)) for name, rows in found.items()
        }
        moments = cls(number, **arrays)
        shapes = {"powers": (4,), "products": (channels,), "counts": (BINS,)}
        for name in found:
            expected, array = (channels, *shapes.get(name, ())), getattr(moments, name)
            if array.shape != expected:
                raise Faults([f"{name}: expected {list(expected)}, found {list(array.shape)}"])
        return moments

    def statistics(self) -> dict[str, Any]:
        """Return the statistics as JSON types; None if a channel is constant.

        ``kurtosis`` is 3 for a normal distribution; ``correlation`` [C, C] is Pearson's, and
        ``mean_correlation`` the mean of its absolute values between two channels. ``effective_dimension`` is
        the participation ratio of the eigenvalues of the covariance, (sum)^2 / sum of squares: C if all
        directions are used alike, 1 if one is.
        """
        first, second, third, fourth = self.powers.T / self.number
        variance = np.maximum(second - first**2, 0)
        centred = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        covariance = self.products / self.number - np.outer(first, first)
        deviation = np.sqrt(variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            constant = variance <= 1e-12 * np.maximum(second, 1e-300)
            kurtosis = np.where(constant, np.nan, centred / variance**2)
            correlation = covariance / np.outer(deviation, deviation)
        correlation[constant] = correlation[:, constant] = np.nan
        return {
            "values": self.number,
            "mean": _rounded(first),
            "deviation": _rounded(deviation),
            "kurtosis": _rounded(kurtosis),
            "clamped_share": _rounded(self.clamped / self.number),
            "minimum": _rounded(self.minimum),
            "maximum": _rounded(self.maximum),
            "correlation": [_rounded(row) for row in correlation],
            "mean_correlation": _mean_correlation(correlation),
            "effective_dimension": _participation(covariance),
            "histogram": self.counts.tolist(),
        }


def _mean_correlation(correlation: Floats) -> float | None:
    others = np.abs(correlation[~np.eye(len(correlation), dtype=bool)])
    known = others[np.isfinite(others)]
    return round(float(known.mean()), 6) if known.size else None


def _participation(covariance: Floats) -> float | None:
    """Return (sum of eigenvalues)^2 / sum of their squares, which traces give without them."""
    squares = float(np.square(covariance).sum())
    return round(float(np.trace(covariance)) ** 2 / squares, 6) if squares > 0 else None


_Row = tuple[float, ...]
_read = table(
    {
        "number": Positive,
        **dict.fromkeys(("powers", "products"), tuple[_Row, ...]),
        "counts": tuple[tuple[int, ...], ...],
        "clamped": tuple[int, ...],
        **dict.fromkeys(("minimum", "maximum"), _Row),
    }
)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return (
            [float(f"{x:.{_DIGITS}g}") for x in value.ravel()]
            if value.ndim == 1
            else [_plain(row) for row in value]
        )
    return value.tolist() if isinstance(value, np.ndarray) else value


def _rounded(values: Floats) -> list[float | None]:
    return [round(float(x), 6) + 0.0 if np.isfinite(x) else None for x in values]
