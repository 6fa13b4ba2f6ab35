"""The page of an evaluation as one file: no network, no framework, readable in years.

Its security policy allows only pictures embedded in the page, and its one script and style sheet by
their sha256: even a name that was taken for markup could neither run nor fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from auravae_cli.evaluation.page.data import PageData
from auravae_cli.evaluation.page.gallery import channels_section, flips_section, pictures_section
from auravae_cli.evaluation.page.latent_space import space_section
from auravae_cli.evaluation.page.markup import Child, Markup, join, tag
from auravae_cli.evaluation.page.tables import (
    all_pictures,
    noise_section,
    statistics_section,
    storage_section,
    summary_section,
)

_WINDOWS = {
    "gaussian": "Gaussian window of 11 pixels",
    "mirrored": "Gaussian window of 11 pixels around every pixel, pictures being mirrored at their borders",
    "uniform": "uniform window of 7 pixels",
}


def page_bytes(data: PageData) -> bytes:
    """Return the complete page, in UTF-8."""
    style, script = (
        files("auravae_cli.evaluation.page").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    title = _title(data)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    sections = _sections(data)
    body = tag(
        "body",
        tag("a", "Skip to the numbers", href="#quality", class_="skip"),
        tag("header", tag("h1", title), class_="top"),
        tag(
            "nav",
            tag("ul", [tag("li", tag("a", name, href=f"#{key}")) for key, name, _ in sections]),
            aria_label="Sections",
        ),
        tag("main", [_section(*section) for section in sections]),
        tag("footer", tag("p", f"Made by auravae {data.summary['tool_version']}.")),
        tag("script", Markup(script)),
    )
    whole = join(Markup("<!DOCTYPE html>\n"), tag("html", head, body, lang="en"))
    return f"{whole}\n".encode()


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _title(data: PageData) -> str:
    number = data.summary["data"]["pictures"]
    *others, last = data.labels
    models = f"{', '.join(others)} and {last}" if others else last
    return f"What {models} {'do' if others else 'does'} to {number} picture{'s' * (number != 1)}"


def _sections(data: PageData) -> list[tuple[str, str, Markup]]:
    """Return each section's name in links, its heading, and its content."""
    latents = [
        tag("div", tag("h3", tag("span", class_=f"key s{n % 6}"), label), *_latents(data, n))
        for n, label in enumerate(data.labels)
    ]
    found = [
        ("quality", "Quality", summary_section(data)),
        ("pictures", "Pictures", join(_which(data), pictures_section(data))),
        ("space", "The latent space", space_section(data)),
        ("flips", "Flips", join(_flips_told(), flips_section(data))),
        ("latents", "Latents", join(latents)),
        ("noise", "Noise", noise_section(data)),
        ("storage", "Storage", storage_section(data)),
        ("all", "Every picture", all_pictures(data)),
        ("method", "How it was measured", _method(data)),
    ]
    failures = data.summary["failures"]
    if failures:
        lines = [
            tag(
                "li",
                tag("b", bad["picture"]),
                f" ({bad['model']})" if bad["model"] else "",
                f": {bad['reason']}",
            )
            for bad in failures
        ]
        found.insert(1, ("failures", f"{len(failures)} failures", tag("ul", lines)))
    return found


def _section(key: str, name: str, content: Markup) -> Markup:
    heading = tag("h2", name, id=f"{key}-name")
    return tag("section", heading, content, id=key, aria_labelledby=f"{key}-name")


def _latents(data: PageData, place: int) -> tuple[Markup, ...]:
    if data.models[place]["latent"] is None:
        return (tag("p", "Made elsewhere: there are no latents.", class_="note"),)
    return channels_section(data, place), statistics_section(data, place)


def _which(data: PageData) -> Markup:
    """Return which pictures are shown, and how."""
    shown, number = len(data.numbers), data.summary["data"]["pictures"]
    has_several = len(data.labels) > 1 and len(data.choice.groups) > 1
    differing = "those on which PSNR of the models differs most, then " if has_several else ""
    if shown < number:
        which = (
            f"{shown} of {number} pictures are shown: {differing}the worst, those around the median, and the best "
            f"by PSNR of {data.labels[0]}. The numbers are of all {number}."
        )
    else:
        which = f"All, {differing}the worst by PSNR of {data.labels[0]} first."
    return tag(
        "p",
        f"{which} Drag across a picture, or use the arrow keys, to compare. Pictures are embedded as WebP of "
        "quality 90; the numbers are of the pixels themselves.",
        class_="note",
    )


def _flips_told() -> Markup:
    return tag(
        "p",
        "A latent z is flipped by reversing axes and negating its odd channels: g·z. The certificate says how far "
        "the encoder E and the decoder D are from commuting with that. The flip gap is what decoding a flipped "
        "latent costs: PSNR(D(z), x) − PSNR(D(gz), gx).",
        class_="note",
    )


def _method(data: PageData) -> Markup:
    settings = data.summary["settings"]
    facts: list[tuple[str, Child]] = [
        (
            "Pictures",
            f"{data.summary['data']['pictures']}, sha256 {data.summary['data']['sha256']}",
        ),
        ("Latents stored as", settings["stored_dtype"]),
        (
            "Preparation",
            ", ".join(
                f"{name} {value}" for name, value in settings["preparation"].items() if value
            ),
        ),
        ("LPIPS weights", settings["lpips"] or "none"),
        ("Text read by", settings["text"] or "none"),
        *_protocol_facts(settings["protocol"]),
    ]
    for model in data.models:
        if model["latent"] is None:
            text = f"made elsewhere, sha256 {model['weights_sha256']}"
        else:
            computed = f"{model['device']}, {model['compute_dtype']}, {model['engine']} engine"
            text = f"weights {model['weights_sha256']}, {model['representation']}, {computed}"
        facts.append((model["label"], text))
    window = _WINDOWS[settings["ssim"]]
    words = (
        f"PSNR pools all pixels and channels of a picture; means are over pictures, in dB. SSIM has a {window}; "
        "MS-SSIM five scales. All are of 8-bit sRGB at the pictures' own size. Flips, noise and "
        "storage types are measured on samples whose sizes stand beside them."
    )
    rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]
    return join(tag("p", words), tag("dl", rows))


def _protocol_facts(protocol: Mapping[str, Any] | None) -> list[tuple[str, Child]]:
    """Return what the protocol is, and where what is published by it differs from what is measured here."""
    if protocol is None:
        return []
    differences = tag("ul", [tag("li", difference) for difference in protocol["differences"]])
    return [
        ("Protocol", join(f"{protocol['name']}: {protocol['title']}. ", protocol["source"])),
        ("Where published numbers differ", differences),
    ]
