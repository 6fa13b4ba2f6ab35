"""Summarise what was measured of the latent space over pictures: plain data for tables and curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from statistics import fmean
from typing import Any

from auravae_cli.evaluation.latent_space import ROUND_TRIPS
from auravae_cli.evaluation.parities import Products, SignedPermutation
from auravae_cli.evaluation.spectra import RINGS
from auravae_cli.evaluation.transforms import NAMES
from auravae_cli.store.certificate import ELEMENTS, decibels
from auravae_cli.symmetry.group import GroupElement, Irreps

Row = Mapping[str, Any]


def summarise_space(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return means over the pictures on which the latent space was measured; None if there is none.

    ``loss`` is in dB: how much worse the moved latent decodes than that of the moved picture. Spectra are in
    dB: of a latent relative to white noise, ``transfer`` that of reconstructions relative to that of their
    originals, ``response`` that of what noise on latents changes, relative to its mean.
    """
    measured = [row["space"] for row in rows if row["space"] is not None]
    if not measured:
        return None
    return {
        "pictures": len(measured),
        "transforms": _transforms([space["transforms"] for space in measured]),
        "drift": [
            {
                "round_trips": count,
                "psnr": mean([space["drift"].get(str(count)) for space in measured]),
            }
            for count in ROUND_TRIPS
        ],
        "crop_loss": mean(space["crop_loss"] for space in measured),
        "border": mean(space["border"] for space in measured),
        "spectra": _spectra([space["spectra"] for space in measured if space["spectra"]]),
    }


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _transforms(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for name in NAMES:
        numbers = [one[name] for one in measured if name in one]
        if numbers:
            losses = [
                None
                if n["psnr"] is None or n["plain_psnr"] is None
                else n["plain_psnr"] - n["psnr"]
                for n in numbers
            ]
            found.append(
                {
                    "name": name,
                    "pictures": len(numbers),
                    "encoder_error": mean(n["encoder_error"] for n in numbers),
                    "psnr": mean(n["psnr"] for n in numbers),
                    "plain_psnr": mean(n["plain_psnr"] for n in numbers),
                    "loss": mean(losses),
                }
            )
    return found


def _spectra(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not measured:
        return None
    means = {
        name: [
            mean((one.get(name) or [None] * RINGS)[ring] for one in measured)
            for ring in range(RINGS)
        ]
        for name in ("latent", "original", "reconstruction", "response")
    }
    whole = mean(means["response"])
    transfer = [
        None if a is None or not b else a / b
        for a, b in zip(means["reconstruction"], means["original"], strict=True)
    ]
    response = [x / whole if x is not None and whole else None for x in means["response"]]
    return {
        "frequencies": [round((ring + 0.5) / (2 * RINGS), 6) for ring in range(RINGS)],
        "latent": _in_decibels(means["latent"]),
        "transfer": _in_decibels(transfer),
        "response": _in_decibels(response),
    }


def _in_decibels(powers: Sequence[float | None]) -> list[float | None]:
    return [10 * math.log10(power) if power else None for power in powers]


def summarise_parities(rows: Sequence[Row], irreps: Irreps) -> dict[str, Any] | None:
    """Return, for each flip, the signed permutation of channels that data speak for, beside the declared one.

    ``error`` is that of the encoder with each; ``best_gap`` the mean loss in dB of decoding flipped latents by
    the best permutation of each picture. None if flips were measured on no picture, or of too many channels.
    """
    measured = [row["flips"] for row in rows if row["flips"] is not None]
    if not measured or any(flips[g]["products"] is None for flips in measured for g in ELEMENTS):
        return None
    return {g: _parity(measured, g, irreps) for g in ELEMENTS}


def _parity(measured: Sequence[Mapping[str, Any]], g: str, irreps: Irreps) -> dict[str, Any]:
    total = reduce(add, (Products.from_json(flips[g]["products"]) for flips in measured))
    declared = SignedPermutation.of_signs(irreps.signs(GroupElement.parse(g)))
    best = total.best()
    gaps = []
    for flips in measured:
        plain, moved = decibels(flips[g]["plain_mse"]["whole"]), decibels(flips[g]["best_mse"])
        gaps.append(None if plain is None or moved is None else plain - moved)
    return {
        "sources": list(best.sources),
        "signs": list(best.signs),
        "moved": best.moved,
        "negated": best.negated,
        "is_declared": best == declared,
        "error": total.error(best),
        "declared_error": total.error(declared),
        "best_gap": mean(gaps),
    }
