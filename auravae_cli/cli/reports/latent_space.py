"""The tables of `auravae eval` about the latent space."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from auravae_cli.cli.reports.outcomes import print_table
from auravae_cli.cli.reports.values import counted, number_or_dash
from auravae_cli.cli.terminal.lines import tell

WIDTH = 80
Model = Mapping[str, Any]


def print_space(labels: Sequence[str], models: Sequence[Model]) -> None:
    """Print how latents move, drift and use their channels; nothing if that was not measured."""
    found = [(label, model) for label, model in zip(labels, models, strict=True) if model["space"]]
    if not found:
        return
    pictures = found[0][1]["space"]["pictures"]
    names = list(dict.fromkeys(t["name"] for _, m in found for t in m["space"]["transforms"]))
    moved = [(label, {t["name"]: t for t in m["space"]["transforms"]}) for label, m in found]
    for title, key, form in (
        (
            "Encoder error when pictures are scaled, turned by 90°, shifted",
            "encoder_error",
            "{:.3f}",
        ),
        ("PSNR dB lost by moving the latent instead of the picture", "loss", "{:.2f}"),
    ):
        if names:
            print_table(
                f"\n{title}, {counted(pictures, 'picture')}",
                ["model", *names],
                [
                    [label, *(number_or_dash(by.get(name, {}).get(key), form) for name in names)]
                    for label, by in moved
                ],
            )
    counts = [point["round_trips"] for point in found[0][1]["space"]["drift"]]
    print_table(
        f"\nPSNR dB after round trips, and the latent space, {counted(pictures, 'picture')}",
        ["model", *map(str, counts), "crop dB", "border", "dim.", "|corr.|"],
        [
            [
                label,
                *(number_or_dash(point["psnr"], "{:.2f}") for point in model["space"]["drift"]),
                number_or_dash(model["space"]["crop_loss"], "{:.3f}"),
                number_or_dash(model["space"]["border"], "{:.3f}"),
                number_or_dash(model["latent"]["effective_dimension"], "{:.1f}"),
                number_or_dash(model["latent"]["mean_correlation"], "{:.3f}"),
            ]
            for label, model in found
        ],
    )


def print_parities(model: Model) -> None:
    """Print which channels a flip exchanges or negates, as data say."""
    parities = model["parities"]
    if parities is None:
        return
    for g, found in parities.items():
        text = f"{g}: {parity_words(found, len(found['sources']))}"
        for line in textwrap.wrap(text, WIDTH - 2, subsequent_indent="  "):
            tell(f"  {line}")


def parity_words(found: Mapping[str, Any], channels: int) -> str:
    """Return what the best signed permutation of channels under a flip does, in a few words."""
    what = f"{found['moved']} of {channels} channels moved, {found['negated']} negated"
    if found["is_declared"]:
        return f"the data confirm the declared action ({what})"
    gap = number_or_dash(found["best_gap"], "{:.2f}")
    return f"data give {what}: E error {found['error']:.2f}, not {found['declared_error']:.2f}; gap {gap} dB"
