"""Captions, labels and keys as other projects store them, and whether they were edited since an export."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from auravae_cli.latents.latent_file import LatentFile

CAPTION, KEY, LABEL = "caption", "key", "label"
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


def label_from(value: Any) -> int | None:
    """Return a label as an int of 64 bits, whatever type holds it; None if it is no integer.

    >>> [label_from(value) for value in (7, 7.0, "7", np.uint8(7), 1.5, True, "cat", 2**63)]
    [7, 7, 7, 7, None, None, None, None]
    """
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        value = int(value)
    elif isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)  # as pandas stores integers beside a missing one
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def key_from(value: Any) -> tuple[str | None, tuple[str, ...]]:
    """Return a sample's key as text, None if it is neither text nor an integer; and `KEY` if it is something else."""
    key = _key_from(value)
    return key, () if key or is_missing(value) else (KEY,)


def _key_from(value: Any) -> str | None:
    if isinstance(value, str):
        return str(value) or None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))  # of any size, since hashes are keys, too
    number = label_from(value)
    return None if number is None else str(number)


def is_missing(value: Any) -> bool:
    """Return whether a field says nothing."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, str) and not value)


def annotations_from(caption: Any, label: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what is a caption and what is a label, and the names of those that are something else."""
    found: dict[str, Any] = {}
    if isinstance(caption, str) and caption:
        found[CAPTION] = str(caption)
    if (number := label_from(label)) is not None:
        found[LABEL] = number
    said = {CAPTION: caption, LABEL: label}
    return found, tuple(n for n, value in said.items() if n not in found and not is_missing(value))


def with_edits(latent: LatentFile, stated: Mapping[str, Any]) -> LatentFile:
    """Return an exported latent with the caption and the label that its file states, if they were edited since.

    A field that is empty was not edited: formats without a place for none fill it so.
    """
    record = latent.records[0]
    before, edits = record.annotations, dict[str, Any]()
    caption, label = stated.get(CAPTION), stated.get(LABEL)
    if caption and _plain(caption) != _plain(before.get(CAPTION, "")):
        edits[CAPTION] = caption
    if label is not None and label != before.get(LABEL):
        edits[LABEL] = label
    if not edits:
        return latent
    return replace(latent, records=(replace(record, annotations=before | edits),))


def _plain(caption: Any) -> str:
    """Return a caption without what formats do not keep: spaces around it, and halves of surrogate pairs."""
    return str(caption).strip().encode(errors="replace").decode()
