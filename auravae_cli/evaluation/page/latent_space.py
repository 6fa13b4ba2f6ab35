"""The page's section on the latent space: how latents move, drift, and spread over frequencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from auravae_cli.evaluation.page.charts import Series, decibels_of, line_chart, with_table
from auravae_cli.evaluation.page.data import Model, PageData
from auravae_cli.evaluation.page.markup import Child, Markup, join, number, table, tag

_CURVES = (
    (
        "latent",
        "Power of latents",
        "dB against white noise",
        "cycles per cell",
        "A latent whose power stays high to the right is harder to model by diffusion.",
    ),
    (
        "transfer",
        "Power of reconstructions against that of originals",
        "dB",
        "cycles per pixel",
        "Below 0, the model smooths; above, it adds detail or noise that the original has not.",
    ),
    (
        "response",
        "Where noise on latents ends up in pictures",
        "dB against its mean",
        "cycles per pixel",
        "The decoder's response to noise: to the left, whole areas change; to the right, fine texture.",
    ),
)


def space_section(data: PageData) -> Markup:
    """Return everything about the latent space but flips, noise and storage types."""
    models = [(place, m) for place, m in enumerate(data.models) if m["space"]]
    if not models:
        return tag("p", "The latent space was not measured (--sweeps 0).", class_="note")
    pictures = models[0][1]["space"]["pictures"]
    caption = (
        f"Measured on {pictures} pictures. T scales a picture (bilinear) or turns it by 90°, as in EQ-VAE, or shifts "
        "it by half a cell, as in AF-LDM. The error is |E(Tx) − T·E(x)| / |E(Tx)|; the loss is PSNR(D(E(Tx)), Tx) − "
        "PSNR(D(T·E(x)), Tx). Crops are 16 × 16 cells decoded by themselves; the border is |z| of the outermost "
        "cells against the inside; the effective dimension is the participation ratio of the channels' covariance."
    )
    return join(
        tag("p", caption, class_="note"),
        _moves(models),
        _numbers(models),
        tag("div", _drift(models), *(_curve(models, *curve) for curve in _CURVES), class_="pair"),
    )


def _named(place: int, model: Model) -> Child:
    return join(tag("span", class_=f"key s{place % 6}"), model["label"])


def _moves(models: Sequence[tuple[int, Model]]) -> Markup | None:
    names = list(dict.fromkeys(t["name"] for _, m in models for t in m["space"]["transforms"]))
    if not names:
        return tag("p", "The pictures are too small to be scaled and shifted.", class_="note")
    columns: list[Child] = ["Model"]
    columns += [join(name, tag("small", "error, loss in dB")) for name in names]
    rows: list[list[Child]] = []
    for place, model in models:
        by_name = {t["name"]: t for t in model["space"]["transforms"]}
        cells: list[Child] = [_named(place, model)]
        for name in names:
            found: Mapping[str, Any] = by_name.get(name, {})
            error = number(found.get("encoder_error"), "{:.3f}")
            cells.append(join(error, tag("small", f"{number(found.get('loss'), '{:.2f}')} dB")))
        rows.append(cells)
    return table("Does the latent move as the picture does?", columns, rows)


def _numbers(models: Sequence[tuple[int, Model]]) -> Markup:
    columns: list[Child] = [
        "Model",
        join("Crop", tag("small", "dB lost")),
        join("Border", tag("small", "1 is like inside")),
        join("Effective dimension", tag("small", "of all channels")),
        join("|correlation|", tag("small", "mean of two channels")),
    ]
    rows: list[list[Child]] = [
        [
            _named(place, model),
            number(model["space"]["crop_loss"], "{:.3f}"),
            number(model["space"]["border"], "{:.3f}"),
            _dimension(model),
            number(model["latent"]["mean_correlation"], "{:.3f}"),
        ]
        for place, model in models
    ]
    return table("The latent space in numbers", columns, rows)


def _dimension(model: Model) -> Child:
    channels = len(model["latent"]["mean"])
    return f"{number(model['latent']['effective_dimension'], '{:.1f}')} of {channels}"


def _drift(models: Sequence[tuple[int, Model]]) -> Markup | None:
    caption = "Mean PSNR to the original after repeated round trips: decoded, rounded to 8 bits, encoded again."
    series, rows = [], []
    for _, model in models:
        drift = model["space"]["drift"]
        points = [(p["round_trips"], p["psnr"]) for p in drift if p["psnr"] is not None]
        if points:
            series.append(Series(model["label"], points))
        line: list[Child] = [model["label"], *(decibels_of(p["psnr"]) for p in drift)]
        rows.append(line)
    if not series:
        return None
    columns: list[Child] = [
        "Model",
        *(f"{p['round_trips']} round trips" for p in models[0][1]["space"]["drift"]),
    ]
    title = "PSNR after repeated round trips"
    chart = line_chart("drift", title, caption, series, ("round trips", "PSNR, dB"))
    return with_table(chart, caption, table("PSNR in dB", columns, rows))


def _curve(
    models: Sequence[tuple[int, Model]], key: str, title: str, unit: str, axis: str, caption: str
) -> Markup | None:
    series, rows, frequencies = [], [], list[float]()
    for _, model in models:
        spectra = model["space"]["spectra"]
        if spectra is None:
            continue
        frequencies = spectra["frequencies"]
        pairs = zip(frequencies, spectra[key], strict=True)
        points = [(frequency, value) for frequency, value in pairs if value is not None]
        if points:
            series.append(Series(model["label"], points))
        line: list[Child] = [model["label"], *(number(v, "{:.1f}") for v in spectra[key])]
        rows.append(line)
    if not series:
        return None
    chart = line_chart(f"spectrum-{key}", title, caption, series, (axis, unit))
    columns: list[Child] = ["Model", *(f"{frequency:.3f}" for frequency in frequencies)]
    return with_table(chart, f"{title}. {caption}", table(f"{unit}, by {axis}", columns, rows))
