"""What is known of one stored latent, and how it stands in JSON. Needs no numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from auravae_cli.geometry import Box, Padding
from auravae_cli.group import E, GroupElement


@dataclass(frozen=True)
class Record:
    """What is known of one stored latent.

    ``image_size`` is the picture's (height, width) before padding; ``orientation`` the group
    element by which the latent differs from its source picture; ``preparation`` what was done to
    the picture beyond turning it upright (see `auravae_cli.prepare.Preparation`).

    In a data set also: ``key`` names the sample, ``annotations`` are what stood beside the picture
    (``caption``, ``label``, ``metadata``), ``source_size`` is the upright source's (height, width),
    and ``source_box`` the part of it that the latent shows. Neither box nor size turn with a flip:
    they speak of the source.
    """

    image_size: tuple[int, int]
    padding: Padding
    orientation: GroupElement = E
    source: str | None = None
    source_sha256: str | None = None
    exif_orientation: int = 1
    preparation: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    source_size: tuple[int, int] | None = None
    source_box: Box | None = None
    annotations: dict[str, Any] = field(default_factory=dict)


def act_on_records(g: GroupElement, records: tuple[Record, ...]) -> tuple[Record, ...]:
    """The records of latents after ``g``: padding and orientation follow."""
    moved = {  # few, since the rows of a shard mostly agree, and have one object each afterwards
        (padding, orientation): {"padding": padding.act(g), "orientation": g @ orientation}
        for padding, orientation in {(record.padding, record.orientation) for record in records}
    }
    return tuple(Record(**(vars(r) | moved[r.padding, r.orientation])) for r in records)


def record_to_json(record: Record) -> dict[str, Any]:
    """A record's fields as JSON types, as they stand in a header; none that says nothing."""
    return {
        name: _FORMS[name].to_json(value)
        for name in _FORMS
        if (value := getattr(record, name)) or name in _REQUIRED
    }


def records_to_json(records: tuple[Record, ...]) -> dict[str, Any]:
    """The fields of a shard: those that all rows share, and ``rows`` with each row's own."""
    columns = {name: [getattr(record, name) for record in records] for name in _FORMS}
    columns = {n: column for n, column in columns.items() if n in _REQUIRED or any(column)}
    shared = {n: column[0] for n, column in columns.items() if _all_alike(column)}
    content = {name: _FORMS[name].to_json(value) for name, value in shared.items()}
    own = {
        name: map(_FORMS[name].to_json, column)
        for name, column in columns.items()
        if name not in shared
    }
    rows = [dict(zip(own, values, strict=True)) for values in zip(*own.values(), strict=True)]
    return content | {"rows": rows or [{}] * len(records)}


def records_from_json(content: dict[str, Any], shard: bool) -> tuple[Record, ...]:
    """The inverse of both. Any fault raises KeyError, TypeError or ValueError."""
    shared = {n: form.from_json(content[n]) for n, form in _FORMS.items() if n in content}
    rows: list[dict[str, Any]] = content["rows"] if shard else [{}]
    for row in rows:
        if not (shared.keys() | row.keys() >= _REQUIRED and shared.keys().isdisjoint(row)):
            raise ValueError(f"every latent needs the fields {', '.join(_FORMS)}, once each")
    return tuple(
        Record(**shared, **{name: _FORMS[name].from_json(value) for name, value in row.items()})
        for row in rows
    )


def _all_alike(column: list[Any]) -> bool:
    """Whether there is one value for all; for tables as JSON, where 1 is neither 1.0 nor true."""
    if not column or column.count(column[0]) < len(column):
        return False
    tables = {id(value): value for value in column if isinstance(value, dict)}.values()
    return len({json.dumps(table, sort_keys=True) for table in tables}) <= 1


def typed(value: Any, kind: type) -> Any:
    """The value; TypeError where it is of another type."""
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, found {value!r}")
    return value


def _read_padding(sides: dict[str, Any]) -> Padding:
    padding = Padding(**sides)
    if any(type(side) is not int or side < 0 for side in sides.values()):
        raise ValueError(f"impossible padding {sides}")
    return padding


def _read_size(sides: list[Any]) -> tuple[int, int]:
    height, width = sides
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise ValueError(f"impossible image size {sides}")
    return height, width


def _read_box(sides: list[Any]) -> Box:
    left, top, right, bottom = map(float, sides)
    if not (-math.inf < left < right < math.inf and -math.inf < top < bottom < math.inf):
        raise ValueError(f"impossible box {sides}")
    return Box(left, top, right, bottom)


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _text(value: Any) -> str:
    return str(typed(value, str))


@dataclass(frozen=True)
class _Form:
    """How a field of `Record` stands in JSON, and how it is read back."""

    from_json: Callable[[Any], Any]
    to_json: Callable[[Any], Any] = lambda value: value


_FORMS = {
    "image_size": _Form(_read_size, list),
    "padding": _Form(_read_padding, lambda padding: dict(vars(padding))),
    "orientation": _Form(GroupElement.parse, str),
    "source": _Form(_optional(_text)),
    "source_sha256": _Form(_optional(_text)),
    "exif_orientation": _Form(lambda value: typed(value, int)),
    "preparation": _Form(lambda value: typed(value, dict)),
    "key": _Form(_optional(_text)),
    "source_size": _Form(_optional(_read_size), lambda size: size and list(size)),
    "source_box": _Form(
        _optional(_read_box), lambda box: box and [float(side) for side in box.as_tuple()]
    ),
    "annotations": _Form(lambda value: typed(value, dict)),
}
_LATER = {"key", "source_size", "source_box", "annotations"}  # absent where they say nothing
_REQUIRED = _FORMS.keys() - _LATER
