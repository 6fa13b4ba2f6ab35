"""Parameters of a query: how each is read, and how the OpenAPI document describes it."""

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
_MOST_SIDES = 5  # of a shape
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class Parameter:
    """A key of a query.

    ``read`` converts its text, and raises ValueError if that is not ``expected``. A key with
    ``repeated`` may occur that many times, and its value is a list.
    """

    name: str
    text: str
    schema: dict[str, Any]
    read: Callable[[str], Any]
    expected: str
    default: Any = None
    repeated: int = 0

    def to_openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description."""
        schema = self.schema if self.default is None else self.schema | {"default": self.default}
        return {"name": self.name, "in": "query", "description": self.text, "schema": schema}

    def value(self, given: Sequence[str]) -> Any:
        """Return the value of the texts that a query has for this key. Raises Refusal (400)."""
        if not given:
            return self.default
        if len(given) > max(1, self.repeated):
            expected = f"at most {self.repeated}" if self.repeated else "1"
            raise Refusal(400, f"{self.name} is given {len(given)} times: expected {expected}")
        try:
            if max(map(len, given)) > LONGEST:
                raise ValueError
            values = [self.read(text) for text in given]
        except ValueError:
            shown = ", ".join(given)[:50]
            raise Refusal(400, f"{self.name} is {shown!r}: expected {self.expected}") from None
        return values if self.repeated else values[0]


def choice(name: str, text: str, options: Sequence[str], default: str | None = None) -> Parameter:
    """One of several words."""

    def read(value: str) -> str:
        if value not in options:
            raise ValueError
        return value

    schema = {"type": "string", "enum": list(options)}
    return Parameter(name, text, schema, read, f"one of {', '.join(options)}", default)


def integer(name: str, text: str, least: int, most: int, default: int | None = None) -> Parameter:
    """An integer from ``least`` to ``most``."""

    def read(value: str) -> int:
        return _within(_integer(value), least, most)

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(name, text, schema, read, f"an integer from {least} to {most}", default)


def number(
    name: str, text: str, least: float, most: float, default: float | None = None
) -> Parameter:
    """A finite number from ``least`` to ``most``."""

    def read(value: str) -> float:
        return _within(float(value), least, most)

    schema = {"type": "number", "minimum": least, "maximum": most}
    return Parameter(name, text, schema, read, f"a number from {least:g} to {most:g}", default)


def boolean(name: str, text: str) -> Parameter:
    """``true`` or ``false``, spelt as in Python or JSON; false by default."""

    def read(value: str) -> bool:
        if value.lower() not in (*_TRUE, *_FALSE):
            raise ValueError
        return value.lower() in _TRUE

    return Parameter(name, text, {"type": "boolean"}, read, "true or false", False)


def colour(name: str, text: str, default: str) -> Parameter:
    """A colour, spelt as in Pillow."""

    def read(value: str) -> str:
        ImageColor.getrgb(value)
        return value

    return Parameter(name, text, {"type": "string"}, read, "e.g. white or #204060", default)


def sides(name: str, text: str) -> Parameter:
    """A shape: the key is repeated, once for each side."""

    def read(value: str) -> int:
        return _within(_integer(value), 1, 1 << 31)

    schema = {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": _MOST_SIDES}
    return Parameter(name, text, schema, read, "integers from 1", repeated=_MOST_SIDES)


def read_query(
    parameters: Sequence[Parameter], query: QueryParams, *, ignores_unknown: bool
) -> dict[str, Any]:
    """Return the value of each parameter, or its default. Raises Refusal (400)."""
    known = {parameter.name for parameter in parameters}
    if not ignores_unknown and (unknown := sorted(set(query) - known)):
        names = ", ".join(sorted(known)) or "none"
        raise Refusal(400, f"unknown parameter {unknown[0][:50]!r}: this path takes {names}")
    return {
        parameter.name: parameter.value(query.getlist(parameter.name)) for parameter in parameters
    }


def _integer(value: str) -> int:
    """Decimal digits only: `int` also reads ``1_000``, and digits of every script."""
    if not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError
    return int(value)


def _within(value: Number, least: float, most: float) -> Number:
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError
    return value
