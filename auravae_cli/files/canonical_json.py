"""JSON as this program writes and reads it: equal content gives equal bytes, and it is JSON.

Python's own reader and writer take NaN and Infinity, which JSON has not, so that other programs
refuse the file. Here such numbers, and those beyond float64 (``1e999``), are read and written as
null: a field that needs a number says that it found none.
"""

from __future__ import annotations

import json
import math
from typing import Any

from auravae_cli.files.limits import JSON_DEPTH


def canonical(content: Any) -> bytes:
    """JSON with sorted keys, no spaces, and a last line break."""
    return (compact(content) + "\n").encode()


def compact(content: Any) -> str:
    """JSON with sorted keys and no spaces, as it stands in headers."""
    return write_json(content, sort_keys=True, separators=(",", ":"))


def write_json(content: Any, **style: Any) -> str:
    """Plain data as JSON text; ``style`` is passed to `json.dumps`."""
    try:
        return json.dumps(content, allow_nan=False, **style)
    except ValueError:  # rare, so that only then all of it is looked at
        return json.dumps(_finite(content), allow_nan=False, **style)


def read_json(text: str | bytes) -> Any:
    """Plain data from JSON text. Raises ValueError where it is none, or is nested too deeply."""
    try:
        return json.loads(text, parse_float=_number, parse_constant=_nothing)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_depth(content: Any) -> None:
    """Raise ValueError where plain data is nested deeper than JSON may be.

    Python reads and writes some hundreds of levels, fewer the deeper it is called: what one call
    has written the next could not read.
    """
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
    """In place of NaN, Infinity and -Infinity."""


def _finite(content: Any) -> Any:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(v) for v in content] if isinstance(content, list | tuple) else content
