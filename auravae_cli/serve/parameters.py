"""The parameters of a query: each read by the very schema that the OpenAPI page shows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import ImageColor
from starlette.datastructures import QueryParams

from auravae_cli.serve.refusal import Refusal

Number = TypeVar("Number", int, float)
LONGEST = 100  # characters of a value
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class Parameter:
    """A key of a query.

    ``read`` converts its text, or raises ValueError with what was expected. Of ``repeated`` keys there
    are up to that many, and the value is a list.
    """

    name: str
    text: str
    schema: dict[str, Any]
    read: Callable[[str], Any]
    default: Any = None
    repeated: int = 0

    def to_openapi(self) -> dict[str, Any]:
        """As the document describes it."""
        schema = self.schema if self.default is None else self.schema | {"default": self.default}
        return {"name": self.name, "in": "query", "description": self.text, "schema": schema}


def choice(name: str, text: str, options: Sequence[str], default: str | None = None) -> Parameter:
    """One of some words."""

    def read(value: str) -> str:
        if value not in options:
            raise ValueError(f"one of {', '.join(options)}")
        return value

    return Parameter(name, text, {"type": "string", "enum": list(options)}, read, default)


def integer(name: str, text: str, least: int, most: int, default: int | None = None) -> Parameter:
    """A whole number within bounds."""

    def read(value: str) -> int:
        return _within(_whole(value), least, most)

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(
        name, text, schema, _guarded(read, f"a whole number from {least} to {most}"), default
    )


def number(
    name: str, text: str, least: float, most: float, default: float | None = None
) -> Parameter:
    """A finite number within bounds."""

    def read(value: str) -> float:
        return _within(float(value), least, most)

    schema = {"type": "number", "minimum": least, "maximum": most}
    return Parameter(
        name, text, schema, _guarded(read, f"a number from {least:g} to {most:g}"), default
    )


def boolean(name: str, text: str, default: bool = False) -> Parameter:
    """``true`` or ``false``, as Python and as JSON spell them."""

    def read(value: str) -> bool:
        if value.lower() not in (*_TRUE, *_FALSE):
            raise ValueError("true or false")
        return value.lower() in _TRUE

    return Parameter(name, text, {"type": "boolean"}, read, default)


def colour(name: str, text: str, default: str) -> Parameter:
    """A colour as Pillow spells it."""

    def read(value: str) -> str:
        ImageColor.getrgb(value)
        return value

    return Parameter(
        name, text, {"type": "string"}, _guarded(read, "e.g. white or #204060"), default
    )


def sides(name: str, text: str) -> Parameter:
    """A shape: the key is repeated, once for each of up to 5 sides."""
    most = 5

    def read(value: str) -> int:
        return _within(_whole(value), 1, 1 << 31)

    schema = {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": most}
    return Parameter(name, text, schema, _guarded(read, "whole numbers from 1"), None, most)


def read_query(
    parameters: Sequence[Parameter], query: QueryParams, *, ignores_unknown: bool
) -> dict[str, Any]:
    """A value for each parameter, its default where it is not given. Raises Refusal (400)."""
    known = {parameter.name for parameter in parameters}
    if not ignores_unknown and (unknown := sorted(set(query) - known)):
        names = ", ".join(sorted(known)) or "none"
        raise Refusal(400, f"unknown parameter {unknown[0][:50]!r}: this path takes {names}")
    values: dict[str, Any] = {}
    for parameter in parameters:
        given = query.getlist(parameter.name)
        if not given:
            values[parameter.name] = parameter.default
            continue
        if len(given) > max(1, parameter.repeated):
            expected = f"at most {parameter.repeated}" if parameter.repeated else "1"
            raise Refusal(400, f"{parameter.name} is given {len(given)} times: expected {expected}")
        try:
            if max(map(len, given)) > LONGEST:
                raise ValueError(f"no more than {LONGEST} characters")
            found = [parameter.read(text) for text in given]
        except ValueError as error:
            shown = ", ".join(given)[:50]
            raise Refusal(400, f"{parameter.name} is {shown!r}: expected {error}") from None
        values[parameter.name] = found if parameter.repeated else found[0]
    return values


def _guarded(read: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    def guarded(value: str) -> Any:
        try:
            return read(value)
        except ValueError:
            raise ValueError(expected) from None

    return guarded


def _whole(value: str) -> int:
    """Python reads ``1_000`` and digits of every script, too."""
    if not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError
    return int(value)


def _within(value: Number, least: float, most: float) -> Number:
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError
    return value
