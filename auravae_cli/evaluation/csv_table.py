"""The rows of an evaluation as CSV: one line per picture and model, one column per number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from auravae_cli.evaluation.row import METRICS
from auravae_cli.store.certificate import ELEMENTS, decibels

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
PLAIN = ("picture", "sha256", "model", *METRICS)


def csv_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the complete file; numbers that were not measured are left empty."""
    lines = [flat(row) for row in rows]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue().encode(errors="surrogateescape")


def _cell(value: Any) -> Any:
    """Return a cell; text that a spreadsheet would take for a formula is preceded by a quote."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with one level of names."""
    line = {name: row[name] for name in PLAIN}
    line["height"], line["width"] = row["image_size"]
    for level, value in (row["noise"] or {}).items():
        line[f"psnr_noise_{level}"] = value
    for name, numbers in (row["storage"] or {}).items():
        line[f"psnr_{name}"], line[f"bytes_{name}"] = numbers["psnr"], numbers["bytes"]
    space = row["space"] or {}
    for name, numbers in space.get("transforms", {}).items():
        for key, value in numbers.items():
            line[f"{name.replace(' ', '_')}_{key}"] = value
    for count, value in space.get("drift", {}).items():
        line[f"psnr_after_{count}"] = value
    for name in ("crop_loss", "border"):
        if space:
            line[name] = space[name]
    for g in ELEMENTS if row["flips"] else ():
        numbers = row["flips"][g]
        line[f"encoder_error_{g}"] = numbers["encoder_error"]
        line[f"decoder_error_{g}"] = numbers["decoder_error"]
        line[f"decoder_psnr_{g}"] = decibels(numbers["decoder_mse"]["whole"])
        line[f"psnr_flipped_{g}"] = decibels(numbers["flipped_mse"]["whole"])
    for stage, value in row["seconds"].items():
        line[f"seconds_{stage}"] = value
    return line
