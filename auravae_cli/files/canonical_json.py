"""JSON as this program writes and reads it: valid, and equal content gives equal bytes.

Python's own reader and writer accept NaN and Infinity, which are not JSON and make other programs
refuse the file. This module reads and writes such numbers, and those beyond float64 (``1e999``), as
null, so a field that needs a number reports that it has none.
"""

from __future__ import annotations

import json
import math
from typing import Any

from auravae_cli.files.limits import JSON_DEPTH


def canonical(content: Any) -> bytes:
    """Return JSON with sorted keys, no spaces, and a trailing newline."""
    return (compact(content) + "\n").encode()


def compact(content: Any) -> str:
    """Return JSON with sorted keys and no spaces, as in headers."""
    return _written(_ENCODER, content)  # `dumps` makes a new one each time


def write_json(content: Any, **style: Any) -> str:
    """Return plain data as JSON text; ``style`` is that of `json.JSONEncoder`."""
    return _written(json.JSONEncoder(allow_nan=False, **style), content)


def _written(encoder: json.JSONEncoder, content: Any) -> str:
    try:
        return encoder.encode(content)
    except ValueError:  # rare, so only then is the content searched
        return encoder.encode(_finite(content))


def read_json(text: str | bytes) -> Any:
    """Parse JSON text. Raises ValueError if it is invalid or nested too deeply."""
    try:
        if isinstance(text, str) and text[:1] != "\ufeff":
            return _DECODER.decode(text)  # `loads` makes a new one each time
        return json.loads(text, parse_float=_number, parse_constant=_nothing)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_depth(content: Any) -> None:
    """Raise ValueError if plain data is nested deeper than JSON may be.

    Python reads and writes some hundreds of levels, fewer if the call itself is deep in the stack, so
    what one call has written another might not be able to read.
    """
    tables: Any = content.values() if isinstance(content, dict) else ()
    if tables and not any(isinstance(item, dict | list | tuple) for item in tables):
        return  # one level, as most have: each row of a shard asks this
    depth, layer = 0, [content]
    while layer := [item for item in layer if isinstance(item, dict | list | tuple)]:
        depth += 1
        if depth > 1 and (reason := JSON_DEPTH.excess(depth)):  # one level is always allowed
            raise ValueError(f"nested too deeply: {reason}")
        layer = [v for item in layer for v in (item.values() if isinstance(item, dict) else item)]


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _nothing(text: str) -> None:
    """Return the replacement of NaN, Infinity and -Infinity."""


_ENCODER = json.JSONEncoder(allow_nan=False, sort_keys=True, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_float=_number, parse_constant=_nothing)


def _finite(content: Any) -> Any:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(v) for v in content] if isinstance(content, list | tuple) else content
