"""The page's sections of tables and charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auravae_cli.evaluation.page.charts import (
    Series,
    correlations,
    decibels_of,
    histograms,
    line_chart,
    spread_chart,
    with_table,
)
from auravae_cli.evaluation.page.data import Model, PageData
from auravae_cli.evaluation.page.markup import Child, Markup, join, number, parity_words, table, tag
from auravae_cli.latents.sums import histogram_span
from auravae_cli.store.certificate import ELEMENTS, decibels
from auravae_cli.symmetry.group import Irreps

MOST_LINES = 1000  # of the table of all pictures
_QUALITY = (
    ("PSNR dB", "psnr", "{:.2f}", False),
    ("SSIM", "ssim", "{:.4f}", False),
    ("MS-SSIM", "ms_ssim", "{:.4f}", False),
    ("LPIPS", "lpips", "{:.4f}", True),
    ("CIEDE2000", "ciede2000", "{:.3f}", True),
    ("Grid", "grid", "{:.3f}", True),
    ("Text error", "text_error", "{:.3f}", True),
    ("rFID", "rfid", "{:.2f}", True),
)
_OF_PICTURES = tuple(metric for metric in _QUALITY if metric[1] != "rfid")
_BETTER = {False: "higher is better", True: "lower is better"}

Metric = tuple[str, str, str, bool]


def summary_section(data: PageData) -> Markup:
    """Return the models side by side, and the spread of their pictures."""
    shown = [q for q in _QUALITY if any(model["quality"][q[1]] for model in data.models)]
    columns: list[Child] = ["Model"]
    columns += [join(name, tag("small", _BETTER[lower])) for name, _, _, lower in shown]
    columns += [join(stage, tag("small", "s a picture")) for stage in ("Encode", "Decode")]
    rows = [_summary_row(data, place, shown) for place in range(len(data.models))]
    pictures = data.summary["data"]["pictures"]
    title = (
        f"Means over {pictures} pictures, and the worst of them" if pictures > 1 else "One picture"
    )
    return join(
        table(title, columns, rows, "quality"),
        _published(data),
        _missing(data, shown),
        _spread(data),
    )


def _published(data: PageData) -> Markup | None:
    """Return the published numbers of the protocol; where these pictures are not all of its, why not."""
    protocol = data.summary["settings"]["protocol"]
    if protocol is None:
        return None
    measured, whole = data.summary["data"]["pictures"], protocol["pictures"]
    if not protocol["published"]:
        return tag("p", f"{protocol['title']}. No published number is comparable.", class_="note")
    if measured != whole:
        caption = f"{protocol['title']}: published numbers are of {whole:,} pictures, these of {measured:,}."
        return tag("p", f"{caption} They are not comparable, and not shown.", class_="note")
    metrics = [
        q for q in _QUALITY if any(one.get(q[1]) is not None for one in protocol["published"])
    ]
    columns: list[Child] = ["Published", *(name for name, *_ in metrics)]
    rows: list[list[Child]] = [
        [one["model"], *(number(one[metric], form) for _, metric, form, _ in metrics)]
        for one in protocol["published"]
    ]
    return table(f"{protocol['title']}: published numbers", columns, rows)


def _summary_row(data: PageData, place: int, shown: list[Metric]) -> list[Child]:
    model = data.models[place]
    kind = "weights" if model["latent"] else "pictures"
    weights = tag("small", f"{kind} {model['weights_sha256'][:12]}")
    cells: list[Child] = [join(tag("span", class_=f"key s{place % 6}"), model["label"], weights)]
    for _, metric, form, lower in shown:
        means = [m["quality"][metric]["mean"] for m in data.models if m["quality"][metric]]
        best = (min if lower else max)(means) if len(data.models) > 1 else None
        cells.append(_quality_cell(data, model["quality"][metric], form, best))
    return [*cells, *(number(model["seconds"][stage], "{:.2f}") for stage in ("encode", "decode"))]


def _quality_cell(
    data: PageData, quality: Mapping[str, Any] | None, form: str, best: float | None
) -> Child:
    """Return a mean, marked if it is the best, and the worst value with its picture."""
    if quality is None:
        return "–"
    mean: Child = number(quality["mean"], form)
    if quality["mean"] == best:
        mean = tag("strong", mean, tag("span", " (best)", class_="unseen"))
    if "worst" not in quality:
        return mean
    worst = f"worst {number(quality['worst'], form)} "
    return join(mean, tag("small", worst, link(data, quality["worst_picture"], 12)))


def link(data: PageData, name: str, longest: int = 40) -> Markup:
    """Return a picture's name or its end, linked to the picture if it is shown."""
    place = data.numbers.get(name)
    text = name if len(name) <= longest else f"…{name[1 - longest :]}"
    return tag("a", text, href=f"#picture-{place}") if place else tag("span", text)


def _missing(data: PageData, shown: list[Metric]) -> Markup | None:
    """Return why a metric does not cover all pictures, or covers none."""
    notes = []
    lacking = [q[0] for q in _QUALITY if q not in shown]
    if lacking:
        notes.append(f"Not measured: {', '.join(lacking)}.")
    for model in data.models:
        for name, metric, *_ in shown:
            quality = model["quality"][metric]
            if quality and quality["pictures"] < model["pictures"]:
                of = f"{quality['pictures']} of {model['pictures']} pictures"
                notes.append(f"{name} of {model['label']} is of {of}.")
    return tag("p", " ".join(notes), class_="note") if notes else None


def _spread(data: PageData) -> Markup | None:
    rows = []
    for label in data.labels:
        values = [row["psnr"] for (of, _), row in data.rows.items() if of == label]
        known = [value for value in values if value is not None]
        if known:
            rows.append((label, known))
    if not rows:
        return None
    caption = "; ".join(f"{label}: {min(v):.2f} to {max(v):.2f} dB" for label, v in rows)
    chart = spread_chart(
        "spread", "PSNR of each picture", f"A dot for each picture. {caption}.", rows, "PSNR, dB"
    )
    lines: list[list[Child]] = [
        [label, len(v), *(f"{_quantile(v, q):.2f}" for q in (0, 0.25, 0.5, 0.75, 1))]
        for label, v in rows
    ]
    columns: list[Child] = [
        "Model",
        "Pictures",
        "Worst",
        "Lower quarter",
        "Median",
        "Upper quarter",
        "Best",
    ]
    caption = "PSNR of each picture. The strokes are the means."
    return with_table(chart, caption, table("PSNR in dB", columns, lines))


def _quantile(values: list[float], share: float) -> float:
    ranked, place = sorted(values), share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])


def certificate_table(certificate: Mapping[str, Any], label: str) -> Markup:
    """Return the numbers of a certificate."""
    rows: list[list[Child]] = []
    for g, numbers in certificate["elements"].items():
        errors = [
            _error(numbers[f"encoder_error{part}"]["worst"])
            for part in ("", "_border", "_inside", "_without_signs", "_without_flip")
        ]
        decoder, gap = numbers["decoder_psnr"]["worst"], numbers["flip_gap"]
        exact = "identical" if decoder is None else f"{decoder:.1f}"
        rows.append([g, *errors, exact, *(number(gap[key], "{:.4f}") for key in ("mean", "worst"))])
    columns: list[Child] = [
        "Flip",
        join("|E(gx) − gE(x)| / |E(x)|", tag("small", "worst picture")),
        join("border", tag("small", "two cells")),
        "inside",
        join("signs left out", tag("small", "a control")),
        join("no flip", tag("small", "a control")),
        join("PSNR(D(gz), gD(z))", tag("small", "dB, worst")),
        join("Flip gap", tag("small", "dB, mean")),
        join("Flip gap", tag("small", "dB, worst")),
    ]
    pictures = certificate["data"]["pictures"]
    return table(f"Flips of latents of {label}, {pictures} pictures", columns, rows)


def parities_table(model: Model) -> Markup | None:
    """Return the signed permutation of channels that data give for each flip, beside the declared action."""
    if model["parities"] is None:
        return None
    rows: list[list[Child]] = []
    for g, found in model["parities"].items():
        channels = len(found["sources"])
        negated = [str(i) for i, sign in enumerate(found["signs"]) if sign < 0]
        moved = [f"{i}←{j}" for i, j in enumerate(found["sources"]) if i != j]
        rows.append(
            [
                g,
                "as declared" if found["is_declared"] else "another",
                f"{found['negated']} of {channels}: {', '.join(negated) or 'none'}",
                f"{found['moved']}: {', '.join(moved) or 'none'}",
                _error(found["error"]),
                _error(found["declared_error"]),
                number(found["best_gap"], "{:.4f}"),
            ]
        )
    columns: list[Child] = [
        "Flip",
        "Found from data",
        "Negated channels",
        "Exchanged channels",
        join("E error", tag("small", "with these")),
        join("E error", tag("small", "as declared")),
        join("Flip gap", tag("small", "dB, mean, with these")),
    ]
    return table(
        f"Hidden parities of {model['label']}: the best signed permutation of channels",
        columns,
        rows,
    )


def _error(value: float | None) -> str:
    return "0" if value == 0 else number(value, "{:.1e}")


def noise_section(data: PageData) -> Markup:
    """Return the loss from noise on latents."""
    models = [model for model in data.models if model["noise"]]
    if not models:
        return tag("p", "Noise was not measured (--sweeps 0).", class_="note")
    series = []
    for model in models:
        points = [
            (p["noise"], p["psnr"]) for p in model["noise"]["points"] if p["psnr"] is not None
        ]
        series.append(Series(model["label"], points))
    pictures = models[0]["noise"]["pictures"]
    rows: list[list[Child]] = [
        [model["label"], *(decibels_of(p["psnr"]) for p in model["noise"]["points"])]
        for model in models
    ]
    columns: list[Child] = [
        "Model",
        *(f"noise {p['noise']:g}" for p in models[0]["noise"]["points"]),
    ]
    caption = f"Means over {pictures} pictures. Each value of a latent is multiplied by 1 + noise × a normal draw."
    drawn = [one for one in series if one.points]
    if not drawn:
        return tag("p", "Every picture came back exactly.", class_="note")
    chart = line_chart(
        "noise", "PSNR against latent noise", caption, drawn, ("latent noise", "PSNR, dB")
    )
    return with_table(chart, caption, table("PSNR in dB", columns, rows))


def storage_section(data: PageData) -> Markup:
    """Return the loss from storage types."""
    models = [model for model in data.models if model["storage"]]
    if not models:
        return tag("p", "Storage types were not measured (--sweeps 0).", class_="note")
    series = []
    for place, model in enumerate(models):
        types = [one for one in model["storage"]["types"] if one["psnr"] is not None]
        points = sorted((one["bytes"] / 1000, one["psnr"], one["type"]) for one in types)
        notes = [] if place else [kind for _, _, kind in points]
        series.append(Series(model["label"], [point[:2] for point in points], notes))
    rows: list[list[Child]] = [
        [
            model["label"],
            one["type"] + ("" if one["is_stored_by_encode"] else " *"),
            f"{one['bytes']:,.0f}",
            decibels_of(one["psnr"]),
            number(one["cost"], "{:.4f}"),
            number(one["worst_cost"], "{:.4f}"),
        ]
        for model in models
        for one in model["storage"]["types"]
    ]
    columns: list[Child] = [
        "Model",
        "Type",
        "Bytes a picture",
        "PSNR dB",
        "Cost dB",
        "Worst cost dB",
    ]
    pictures = models[0]["storage"]["pictures"]
    caption = (
        f"Means over {pictures} pictures; bfloat16 takes the bytes of float16. Costs are against float32. "
        "int8 (*) has one scale a channel; encode does not write it."
    )
    drawn = [one for one in series if one.points]
    if not drawn:
        return table("Storage types", columns, rows)
    axes = ("kilobytes a picture", "PSNR, dB")
    chart = line_chart("storage", "PSNR against the bytes of a stored latent", caption, drawn, axes)
    return with_table(chart, caption, table("Storage types", columns, rows))


def statistics_section(data: PageData, place: int) -> Markup:
    """Return the distribution of the values of a model's latents."""
    model = data.models[place]
    latent, label = model["latent"], model["label"]
    parities = Irreps.parse(model["representation"]).parities
    names = [f"{channel} {parity}" for channel, parity in enumerate(parities)]
    cells = list(zip(names, latent["histogram"], strict=True))
    title = f"Histograms of the channels of {label}"
    span = histogram_span(model["clamp"])
    caption = (
        f"{len(names)} channels, {latent['values']:,} values each, from −{span:g} to {span:g}."
    )
    chart = histograms(f"histograms-{place}", title, caption, cells, span)
    rows: list[list[Child]] = [
        [
            str(channel),
            join(
                tag("span", parity, class_=f"parity {parity}"),
                tag("span", f" {parity_words(parity)}", class_="unseen"),
            ),
            *(number(latent[name][channel], "{:.3f}") for name in ("mean", "deviation")),
            number(latent["kurtosis"][channel], "{:.2f}"),
            number(latent["clamped_share"][channel], "{:.3%}"),
            *(number(latent[name][channel], "{:.2f}") for name in ("minimum", "maximum")),
        ]
        for channel, parity in enumerate(parities)
    ]
    columns: list[Child] = [
        "Channel",
        "Parity",
        "Mean",
        "Deviation",
        "Kurtosis",
        "Clamped",
        "Minimum",
        "Maximum",
    ]
    title = f"Correlation of the channels of {label}"
    matrix = latent["correlation"]
    others = [
        abs(v)
        for i, row in enumerate(matrix)
        for j, v in enumerate(row)
        if i != j and v is not None
    ]
    told_too = f"The strongest between two channels is {max(others, default=0):.2f}."
    return tag(
        "div",
        with_table(chart, caption, table(f"Latents of {label}", columns, rows)),
        with_table(
            correlations(f"correlations-{place}", title, told_too, matrix),
            f"Correlation: blue is negative, red positive. {told_too}",
            table(
                title,
                ["Channel", *map(str, range(len(matrix)))],
                [
                    [str(i), *(number(value, "{:.2f}") for value in row)]
                    for i, row in enumerate(matrix)
                ],
            ),
        ),
        class_="pair",
    )


def all_pictures(data: PageData) -> Markup:
    """Return a line per picture and model, the worst first; a click on a heading sorts them."""
    ranked = sorted(
        data.rows.items(), key=lambda item: (item[1]["psnr"] is None, item[1]["psnr"] or 0, item[0])
    )
    columns: list[Child] = ["Picture", "Model", "Size", *(q[0] for q in _OF_PICTURES)]
    has_flips = any(row["flips"] for row in data.rows.values())
    columns += ["Worst flip gap dB"] if has_flips else []
    rows: list[list[Child]] = []
    for (label, name), row in ranked[:MOST_LINES]:
        height, width = row["image_size"]
        cells = [_sortable(row[metric], form) for _, metric, form, _ in _OF_PICTURES]
        gap = [_sortable(flip_gap(row), "{:.4f}")] if has_flips else []
        size = tag("td", f"{width} × {height}", data_value=width * height)
        rows.append([link(data, name), label, size, *cells, *gap])
    left = len(ranked) - len(rows)
    note = (
        tag("p", f"{left} more lines are left out here: --csv writes all.", class_="note")
        if left
        else None
    )
    whole = table("Every picture by every model", columns, rows, "sortable")
    return join(tag("details", tag("summary", f"{len(rows)} lines"), whole), note)


def _sortable(value: float | None, form: str) -> Markup:
    return tag("td", number(value, form), data_value="" if value is None else f"{value:.9g}")


def flip_gap(row: Mapping[str, Any]) -> float | None:
    """Return the largest loss in dB of a picture over the flips."""
    if not row["flips"]:
        return None
    gaps = []
    for g in ELEMENTS:
        plain, flipped = (
            decibels(row["flips"][g][f"{kind}_mse"]["whole"]) for kind in ("plain", "flipped")
        )
        gaps.append(0.0 if plain is None or flipped is None else plain - flipped)
    return max(gaps)
