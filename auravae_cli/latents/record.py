"""The record of a stored latent, and its JSON form. Does not need numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, repeat
from typing import Any

from auravae_cli.files.canonical_json import check_depth, compact
from auravae_cli.files.typed import Faults, Natural, Positive, reader, shown, table
from auravae_cli.symmetry.geometry import Box, Padding
from auravae_cli.symmetry.group import E, GroupElement


@dataclass(frozen=True)
class Record:
    """The record of a stored latent.

    ``image_size`` is the picture's (height, width) before padding; ``orientation`` is the group element
    by which the latent differs from its source picture; ``preparation`` is what was done to the picture
    beyond turning it upright (see `auravae_cli.images.prepare.Preparation`).

    In a dataset also: ``key`` names the sample, ``annotations`` are the picture's companions
    (``caption``, ``label``, ``metadata``), ``source_size`` is the upright source's (height, width),
    and ``source_box`` is the part of it that the latent shows. ``computed`` says how, on which last bits
    depend (`Codec.computed`); a store says it of all its rows. A flip changes neither box nor size,
    since they describe the source.
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
    computed: dict[str, Any] = field(default_factory=dict)


def act_on_records(g: GroupElement, records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Return the records of latents after ``g``, with padding and orientation updated."""
    moved = {  # few, since most rows of a shard agree; equal rows share one object
        (padding, orientation): {"padding": padding.act(g), "orientation": g @ orientation}
        for padding, orientation in {(record.padding, record.orientation) for record in records}
    }
    return tuple(Record(**(vars(r) | moved[r.padding, r.orientation])) for r in records)


def record_to_json(record: Record) -> dict[str, Any]:
    """Return a record's fields as JSON types, as in a header, without empty ones."""
    return {
        name: field.to_json(value)
        for name, field in FIELDS.items()
        if (value := getattr(record, name)) or name in _REQUIRED
    }


def records_to_json(records: tuple[Record, ...]) -> dict[str, Any]:
    """Return the fields of a shard: those that all rows share, and ``rows`` with each row's own."""
    columns = {name: [getattr(record, name) for record in records] for name in FIELDS}
    columns = {n: column for n, column in columns.items() if n in _REQUIRED or any(column)}
    shared = {n: column[0] for n, column in columns.items() if _all_alike(column)}
    content = {name: FIELDS[name].to_json(value) for name, value in shared.items()}
    own = {
        name: [FIELDS[name].to_json(value) for value in column]
        for name, column in columns.items()
        if name not in shared
    }
    rows = [dict(zip(own, values, strict=True)) for values in zip(*own.values(), strict=True)]
    return content | {"rows": rows or [{}] * len(records)}


def texts_of_records(
    records: tuple[Record, ...], common: Mapping[str, Any], own: Mapping[str, Iterable[Any]]
) -> Iterator[str]:
    """Yield canonical JSON for each record: `record_to_json`, ``common``, and the record's value of each of ``own``.

    What all rows share, which is most of it, is encoded once.
    """
    columns: dict[str, Iterable[str]] = {
        name: map(f'"{name}":{{}}'.format, map(compact, values)) for name, values in own.items()
    }
    shared = {name: f'"{name}":{compact(value)}' for name, value in common.items()}
    for name, kind in FIELDS.items():
        values = [getattr(record, name) for record in records]
        alike, is_required = _all_alike(values), name in _REQUIRED
        texts = [
            f'"{name}":{compact(kind.to_json(value))}' if value or is_required else ""
            for value in (values[:1] if alike else values)
        ]
        if alike:
            shared[name] = texts[0]
        else:
            columns[name] = texts
    segments: list[Iterable[str]] = [repeat("", len(records))]  # so that there is an end
    for is_own, names in groupby(sorted({*columns, *shared}), columns.__contains__):
        if is_own:
            segments += [columns[name] for name in names]
        else:
            segments.append(repeat(",".join(filter(None, (shared[name] for name in names)))))
    for row in zip(*segments, strict=False):
        yield "{" + ",".join(filter(None, row)) + "}"


def records_from_json(content: dict[str, Any], shard: bool) -> tuple[Record, ...]:
    """Parse the records of a latent or a shard. Raises Faults."""
    if not shard:
        return (Record(**_read_record(content)),)
    shared = _read_shared(content)
    lacking, records = _REQUIRED - shared.keys(), []
    for number, row in enumerate(_read_rows(content)["rows"]):
        try:
            own = _read_row(row)
            if missing := lacking - own.keys():
                raise Faults([f": missing {', '.join(sorted(missing))}"])
            if not shared.keys().isdisjoint(own):
                twice = ", ".join(sorted(shared.keys() & own.keys()))
                raise Faults([f": {twice}: said of all rows already"])
        except Faults as error:
            raise Faults(error.within(f"rows[{number}]")) from None
        records.append(Record(**shared, **own))
    return tuple(records)


def _all_alike(column: list[Any]) -> bool:
    """Return whether all values are equal; tables are compared as JSON, where 1 is neither 1.0 nor true."""
    if not column or column.count(column[0]) < len(column):
        return False
    tables = {id(value): value for value in column if isinstance(value, dict)}.values()
    return len({json.dumps(table, sort_keys=True) for table in tables}) <= 1


_read_sides = reader(tuple[float, float, float, float])
_read_padded_sides = table(dict.fromkeys(("left", "right", "top", "bottom"), Natural))


def _read_padding(value: Any) -> Padding:
    try:  # nearly all latents have one of a few
        return _padding_of(tuple(value), *value.values())
    except (TypeError, AttributeError):  # no table, or one with tables in it
        return Padding(**_read_padded_sides(value))


@lru_cache(256, typed=True)  # since 0, 0.0 and false are no equals here
def _padding_of(sides: tuple[str, ...], *values: Any) -> Padding:
    return Padding(**_read_padded_sides(dict(zip(sides, values, strict=True))))


def _read_box(value: Any) -> Box | None:
    if value is None:
        return None
    left, top, right, bottom = _read_sides(value)
    if not (left < right and top < bottom):
        raise Faults([f": expected a box [left, top, right, bottom], found {value}"])
    return Box(left, top, right, bottom)


def _read_table(value: Any) -> dict[str, Any]:
    """Parse a table of anything that is not nested too deeply."""
    if type(value) is not dict:
        raise Faults([f": expected a table, found {shown(value)}"])
    try:
        check_depth(value)
    except ValueError as error:
        raise Faults([f": {error}"]) from None
    return value


def _read_annotations(value: Any) -> dict[str, Any]:
    annotations = _read_table(value)
    _check_annotations(annotations)
    return annotations  # with all other keys


_check_annotations = table(
    {"caption": str, "label": int}, optional=("caption", "label"), others=True
)


@dataclass(frozen=True)
class RecordField:
    """A field of `Record`: how to read it from JSON and write it, and its value if it is not set."""

    kind: Any  # for `reader`
    to_json: Callable[[Any], Any] = lambda value: value
    unset: Any = None


FIELDS: dict[str, RecordField] = {
    "image_size": RecordField(tuple[Positive, Positive], list),
    "padding": RecordField(_read_padding, lambda padding: dict(vars(padding)), Padding()),
    "orientation": RecordField(GroupElement, str, E),
    "source": RecordField(str | None),
    "source_sha256": RecordField(str | None),
    "exif_orientation": RecordField(int, unset=1),
    "preparation": RecordField(_read_table, _read_table, {}),
    "key": RecordField(str | None),
    "source_size": RecordField(tuple[Positive, Positive] | None, lambda size: size and list(size)),
    "source_box": RecordField(
        _read_box, lambda box: box and [float(side) for side in box.as_tuple()]
    ),
    "annotations": RecordField(_read_annotations, _read_table, {}),
    "computed": RecordField(_read_table, _read_table, {}),
}


def is_set(record: Record, name: str) -> bool:
    """Return whether a field of a record has a value."""
    return bool(getattr(record, name) != FIELDS[name].unset)


_KINDS = {name: field.kind for name, field in FIELDS.items()}
_LATER = {"key", "source_size", "source_box", "annotations", "computed"}  # absent if empty
_REQUIRED = FIELDS.keys() - _LATER
_read_record = table(_KINDS, optional=_LATER, others=True)
_read_shared = table(_KINDS, optional=_KINDS, others=True)
_read_row = table(_KINDS, optional=_KINDS)
_read_rows = table({"rows": tuple[dict[str, Any], ...]}, others=True)
