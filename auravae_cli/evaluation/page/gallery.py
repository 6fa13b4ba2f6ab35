"""The page's sections of pictures: each picture, the orbit of a latent, the latent's channels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from auravae_cli.evaluation.page.data import (
    COMPONENTS,
    DIFFERENCE,
    LATENT,
    ORIGINAL,
    RECONSTRUCTION,
    PageData,
)
from auravae_cli.evaluation.page.markup import (
    Markup,
    data_uri,
    join,
    number,
    parity_words,
    tag,
)
from auravae_cli.evaluation.page.tables import certificate_table, parities_table
from auravae_cli.images.read import Pixels
from auravae_cli.latents.latent_file import parse_latents
from auravae_cli.model.preview import channel_map, component_colours, latent_colours, map_range
from auravae_cli.store.certificate import decibels
from auravae_cli.symmetry.group import GROUP

LONGEST_LATENT = 256  # pixels
SMALL = 200  # pixels across: narrower pictures are enlarged without smoothing
_WORDS = {
    "e": "decoded as it is",
    "h": "mirrored left–right",
    "v": "mirrored top–bottom",
    "hv": "turned by 180°",
}


def pictures_section(data: PageData) -> Markup:
    """Return all shown pictures, in their groups."""
    numbers = data.numbers
    parts = []
    for title, names in data.choice.groups:
        if title:
            parts.append(tag("h3", f"{title} {len(names)}", class_="group"))
        parts += [_picture(data, name, numbers[name], "h4" if title else "h3") for name in names]
    return join(parts)


def _picture(data: PageData, name: str, place: int, heading: str) -> Markup:
    """Return a picture: a slider between original and reconstruction, and everything side by side."""
    head = tag(heading, name, id=f"name-{place}")
    original = next(filter(None, (data.file(label, name, ORIGINAL) for label in data.labels)), None)
    if original is None:
        body: Markup = tag("p", "This picture could not be drawn again.", class_="note")
    else:
        body = join(_viewer(data, name, original), _strip(data, name, original))
    return tag(
        "article",
        head,
        body,
        id=f"picture-{place}",
        class_="picture",
        aria_labelledby=f"name-{place}",
    )


def _viewer(data: PageData, name: str, original: bytes) -> Markup:
    """Return the elements that the script turns into a slider; hidden without scripts."""
    labels = [label for label in data.labels if data.file(label, name, RECONSTRUCTION)]
    first = labels[0] if labels else ""
    width, height = _size(original)
    return tag(
        "div",
        tag(
            "div",
            _side("left", name, ["original", *labels], "original"),
            _side("right", name, [*labels, "original"], first),
            tag(
                "span",
                "Zoom ",
                tag("button", "−", type="button", class_="out", aria_label=f"Zoom out of {name}"),
                " ",
                tag("button", "+", type="button", class_="in", aria_label=f"Zoom into {name}"),
                class_="zooms",
            ),
            class_="choice",
        ),
        tag(
            "div",
            tag("span", "original", class_="side left", aria_hidden="true"),
            tag("span", first, class_="side right", aria_hidden="true"),
            tag("span", class_="handle", aria_hidden="true"),
            tag(
                "input",
                type="range",
                min=0,
                max=100,
                step=1,
                value=50,
                aria_label=f"Where the two sides of {name} meet, from the left",
            ),
            class_="compare",
            data_width=width,
            data_height=height,
        ),
        class_="viewer",
        hidden=True,
    )


def _side(side: str, name: str, labels: list[str], chosen: str) -> Markup:
    """Return the choice of what a side of the slider shows; one for all pictures, by the script."""
    options = [
        tag("option", label, value=label, selected=label == chosen or None) for label in labels
    ]
    text = f"What is on the {side} of the slider, here {name} and in all other pictures"
    return tag(
        "label", side.capitalize(), tag("select", options, class_=f"of-{side}", aria_label=text)
    )


def _strip(data: PageData, name: str, original: bytes) -> Markup:
    """Return the original, and each model's reconstruction, difference and latent, in full."""
    row = data.rows[next((label, name) for label in data.labels if (label, name) in data.rows)]
    height, width = row["image_size"]
    shown = _size(original)
    reduced = f", shown at {shown[0]} × {shown[1]}" if shown != (width, height) else ""
    caption = f"original, {width} × {height}{reduced}"
    first = tag(
        "div", _figure(original, f"The original of {name}", caption, "original"), class_="three"
    )
    rows = [_of_model(data, label, name, place) for place, label in enumerate(data.labels)]
    return tag("div", first, rows, class_="strip")


def _of_model(data: PageData, label: str, name: str, place: int) -> Markup:
    """Return one model's results for a picture: its numbers, and three pictures."""
    marked = join(tag("span", class_=f"key s{place % 6}"), tag("b", label))
    row = data.rows.get((label, name))
    reconstruction, change, cells = (
        data.file(label, name, file) for file in (RECONSTRUCTION, DIFFERENCE, COMPONENTS)
    )
    if row is None or reconstruction is None or change is None:
        return tag("div", tag("p", marked, ": no picture", class_="note"))
    psnr = "exact" if row["psnr"] is None else f"{row['psnr']:.2f} dB"
    ssim = "" if row["ssim"] is None else f", SSIM {row['ssim']:.3f}"
    lpips = "" if row["lpips"] is None else f", LPIPS {row['lpips']:.3f}"
    numbers, about = f"{psnr}{ssim}{lpips}", f"of {name} by {label}"
    words = f"The reconstruction {about}: {numbers}"
    amplified = f"The difference {about}, four times amplified around grey"
    components = f"The latent {about}: three principal components as red, green and blue"
    figures = [
        _figure(reconstruction, words, "reconstruction", "reconstruction", label),
        _figure(change, amplified, "difference × 4", "difference"),
    ]
    if cells is not None:
        figures.append(_figure(cells, components, "latent, components", "cells"))
    return tag(
        "div", tag("p", marked, f" {numbers}"), tag("div", figures, class_="three"), class_="of"
    )


def _figure(
    content: bytes, alt: str, caption: str | Markup, class_: str, label: str | None = None
) -> Markup:
    width, height = _size(content)
    image = tag("img", src=data_uri(content), alt=alt, width=width, height=height, decoding="async")
    small = " small" if width < SMALL else ""
    return tag("figure", image, tag("figcaption", caption), class_=class_ + small, data_label=label)


def _size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def flips_section(data: PageData) -> Markup:
    """Return each model's certificate, and the orbit of the featured picture's latent."""
    parts = []
    for place, model in enumerate(data.models):
        certificate = model["certificate"]
        title = tag("h3", tag("span", class_=f"key s{place % 6}"), model["label"])
        if certificate is None:
            reason = "Flips were not measured (--flips 0), so there is no certificate."
            if model["latent"] is None:
                reason = "Made elsewhere: there are no latents to flip."
            note = tag("p", reason, class_="note")
            parts.append(tag("div", title, note))
            continue
        exact = (
            "The action on files and values is exact, checked for every picture."
            if certificate["action_exact"]
            else "The action on files is NOT exact."
        )
        parts.append(
            tag(
                "div",
                title,
                tag("p", certificate["statement"], class_="statement"),
                tag("p", exact, class_="note"),
                certificate_table(certificate, model["label"]),
                parities_table(model),
                _orbit(data, model["label"]),
            )
        )
    return join(parts)


def _orbit(data: PageData, label: str) -> Markup:
    """Return the decodes of all four flips of one latent, each flipped back."""
    name = data.choice.featured
    row = data.rows.get((label, name))
    figures = []
    for g in map(str, GROUP):
        content = data.file(label, name, f"orbit-{g}.webp")
        if content is None or row is None:
            continue
        words = "z" if g == "e" else f"{g}·z"
        alt = f"{name} from the latent {_WORDS[g]}, decoded by {label}" + (
            " and turned back" * (g != "e")
        )
        caption = join(tag("b", f"D({words})"), f" {_WORDS[g]}: {_orbit_numbers(row, g)}")
        figures.append(_figure(content, alt, caption, "orbit"))
    changes = []
    for g in map(str, GROUP[1:]):
        content = data.file(label, name, f"orbit-{g}-difference.webp")
        if content is None or row is None:
            continue
        alt = (
            f"What flipping the latent by {g} changes in the decode of {name} by {label}, amplified"
        )
        text = f"{g}: difference from D(z) × 4, {_orbit_difference(row, g)}"
        changes.append(_figure(content, alt, text, "orbit"))
    if not figures:
        return tag("p", "The orbit could not be drawn.", class_="note")
    title = tag("h4", f"The orbit of the latent of {name}, each decode turned back")
    return tag(
        "div",
        title,
        tag("div", figures, class_="orbits"),
        tag("div", changes, class_="orbits changes"),
    )


def _orbit_numbers(row: Mapping[str, Any], g: str) -> str:
    if g == "e" or not row["flips"]:
        return "exact" if row["psnr"] is None else f"{row['psnr']:.2f} dB"
    value = decibels(row["flips"][g]["flipped_mse"]["whole"])
    return "exact" if value is None else f"{value:.2f} dB"


def _orbit_difference(row: Mapping[str, Any], g: str) -> str:
    if not row["flips"]:
        return "not measured"
    value = decibels(row["flips"][g]["decoder_mse"]["whole"])
    return "identical" if value is None else f"PSNR {value:.1f} dB"


def channels_section(data: PageData, place: int) -> Markup:
    """Return a map of each channel of the featured picture's latent, marked with its parity."""
    label, name = data.labels[place], data.choice.featured
    content = data.file(label, name, LATENT)
    if content is None:
        return tag("p", "The latent could not be drawn.", class_="note")
    stored = parse_latents(content)
    latent = stored.to_float32()
    top = map_range(latent)
    lead = [(component_colours(latent, stored.space.irreps), "three principal components")]
    colours, are_true = latent_colours(latent, stored.space)
    lead += [(colours, "a linear map to colours, fitted")] if are_true else []
    wholes = [_figure(png(p), f"The latent of {name} by {label}: {w}", w, "cells") for p, w in lead]
    figures = []
    for channel, (plane, parity) in enumerate(
        zip(latent, stored.space.irreps.parities, strict=True)
    ):
        figures.append(_map(plane, channel, parity, top, label))
    text = (
        f"{name}: {' × '.join(map(str, latent.shape))} values. Blue is negative, red positive, full colour "
        f"is ±{top:.2f}. A flip mirrors every map; maps that are odd under it exchange blue and red."
    )
    return join(
        tag("p", text, class_="note"),
        tag("div", wholes, class_="orbits"),
        tag("div", figures, class_="channels"),
    )


def _map(plane: Any, channel: int, parity: str, top: float, label: str) -> Markup:
    low, high = (number(float(value), "{:.2f}") for value in (np.min(plane), np.max(plane)))
    words = parity_words(parity)
    alt = f"Channel {channel} of the latent by {label}, {words}: values from {low} to {high}"
    mark = tag("span", parity, class_=f"parity {parity}", title=words)
    return _figure(png(channel_map(plane, top)), alt, join(f"{channel} ", mark), "cells")


def png(pixels: Pixels) -> bytes:
    """Return cells of a latent as PNG, one pixel each unless there are too many."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_LATENT, LONGEST_LATENT), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
