"""Summarise the numbers of pictures per model, as plain data for tables and pages.

``summarise`` returns one table per model: quality, noise, storage, flips (the certificate), statistics
of latents, the latent space. Curves are lists of points, and every number states how many pictures it covers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from auravae_cli.evaluation.equivariance import BAND_CELLS
from auravae_cli.evaluation.measure import MeasureOptions, how_computed
from auravae_cli.evaluation.reconstructions import Reconstructions
from auravae_cli.evaluation.row import LOWER_IS_BETTER, METRICS
from auravae_cli.evaluation.space_summary import summarise_parities, summarise_space
from auravae_cli.evaluation.sweeps import INT8, STORAGE_TYPES
from auravae_cli.latents.latent_file import space_to_json
from auravae_cli.latents.sums import LatentSums
from auravae_cli.model.codec import Codec
from auravae_cli.store.certificate import Certificate, make_certificate
from auravae_cli.version import __version__

Row = Mapping[str, Any]


def summarise(
    label: str, codec: Codec, rows: Sequence[Row], options: MeasureOptions
) -> dict[str, Any]:
    """Return the summary of one model from the rows of its pictures, at least one; JSON types."""
    certificate = certify(codec, rows, options)
    return {
        **_summarise_pictures(label, rows),
        **space_to_json(codec.space),
        "device": codec.device,
        "compute_dtype": codec.compute_dtype,
        "engine": codec.engine,
        "symmetry": codec.symmetry,
        "posterior": codec.posterior,
        "noise": _noise(rows, options),
        "storage": _storage(rows),
        "latent": _statistics(rows),
        "space": summarise_space(rows),
        "parities": summarise_parities(rows, codec.space.irreps),
        "certificate": certificate and certificate.content,
        "seconds": {
            stage: fmean(row["seconds"][stage] for row in rows) for stage in ("encode", "decode")
        },
    }


def summarise_reconstructions(found: Reconstructions, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the summary of reconstructions that were made elsewhere: what needs a model is null."""
    nothing = ("representation", "clamp", "noise", "storage", "latent", "space", "parities")
    return {
        **_summarise_pictures(found.label, rows),
        **dict.fromkeys((*nothing, "certificate")),
        "model": found.label,
        "weights_sha256": found.digest,
        "engine": "made elsewhere",
        "seconds": {"encode": None, "decode": None},
    }


def _summarise_pictures(label: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "label": label,
        "pictures": len(rows),
        "quality": {metric: quality(rows, metric) for metric in METRICS} | {"rfid": None},
    }


def certify(codec: Codec, rows: Sequence[Row], options: MeasureOptions) -> Certificate | None:
    """Return the certificate of a model; None if flips were measured on no picture."""
    measured = [row for row in rows if row["flips"] is not None]
    if not measured:
        return None
    factor = codec.space.downsampling_factor
    odd = sum(any(side % factor for side in row["image_size"]) for row in measured)
    data = {
        **describe_data(measured),
        "sizes_not_multiples": odd,
        "sizes_multiples": len(measured) - odd,
    }
    settings = {**how_computed(codec, options), "border_cells": BAND_CELLS}
    flips = [{**row["flips"], "picture": row["picture"]} for row in measured]
    return make_certificate(codec.space, flips, data, settings, __version__)


def describe_data(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the number of pictures, and the sha256 of their sorted sha256s, one per line."""
    digests = sorted(row["sha256"] for row in rows)
    lines = "".join(f"{digest}\n" for digest in digests)
    return {"pictures": len(rows), "sha256": hashlib.sha256(lines.encode()).hexdigest()}


def quality(rows: Sequence[Row], metric: str) -> dict[str, Any] | None:
    """Return mean, worst, and the worst picture; None if no picture has the metric.

    Pictures that are reproduced exactly have no PSNR, and those that are too small no SSIM, so the result
    states how many pictures it covers.
    """
    known = [(row[metric], row["picture"]) for row in rows if row[metric] is not None]
    if not known:
        return None
    worst, picture = (max if metric in LOWER_IS_BETTER else min)(known)
    mean = fmean(value for value, _ in known)
    return {"mean": mean, "worst": worst, "worst_picture": picture, "pictures": len(known)}


def _noise(rows: Sequence[Row], options: MeasureOptions) -> dict[str, Any] | None:
    measured = [row for row in rows if row["noise"] is not None]
    if not measured:
        return None
    points = []
    for level in (0.0, *options.noise):
        values = [row["noise"].get(f"{level:g}") for row in measured]
        points.append({"noise": level, **_mean_and_least(values)})
    return {"pictures": len(measured), "seed": options.seed, "points": points}


def _storage(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return for each type the bytes per picture, PSNR, and the loss relative to float32."""
    measured = [row for row in rows if row["storage"] is not None]
    if not measured:
        return None
    types = []
    for name in STORAGE_TYPES:
        values = [row["storage"][name]["psnr"] for row in measured]
        costs = [
            _cost(row["storage"]["float32"]["psnr"], row["storage"][name]["psnr"])
            for row in measured
        ]
        types.append(
            {
                "type": name,
                "bytes": fmean(row["storage"][name]["bytes"] for row in measured),
                **_mean_and_least(values),
                "cost": fmean(costs),
                "worst_cost": max(costs),
                "flips_exactly": True,
                "is_stored_by_encode": name != INT8,
            }
        )
    return {"pictures": len(measured), "types": types}


def _cost(whole: float | None, rounded: float | None) -> float:
    """Return the loss in dB from rounding; 0 if one of them reproduces the picture exactly."""
    return 0.0 if whole is None or rounded is None else whole - rounded


def _mean_and_least(values: list[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {"psnr": fmean(known) if known else None, "worst": min(known, default=None)}


def _statistics(rows: Sequence[Row]) -> dict[str, Any]:
    total = LatentSums.from_text(rows[0]["moments"])
    for row in rows[1:]:
        total = total + LatentSums.from_text(row["moments"])
    return total.statistics()
