"""HTML and SVG as values: everything that is not markup is escaped, so no name can break a page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from html import escape, unescape

from auravae_cli.symmetry.group import PARITIES

_VOID = frozenset(("img", "input", "meta", "br", "hr"))
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\ud800-\udfff]"
)  # not allowed in the text of a page


class Markup(str):
    """A piece of a page that needs no escaping."""

    __slots__ = ()


Child = Markup | str | int | None | Iterable[Markup | str | None]


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: `Markup` stays as it is, any other text is escaped; None is left out, lists are
            taken one by one.
        attributes: ``class_`` stands for ``class``, underscores for hyphens; True gives a bare
            attribute, None and False none.

    >>> tag("p", "a < b", class_="x")
    '<p class="x">a &lt; b</p>'
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Join pieces."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, (str, int)):
            parts.append(_text(child))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))


def _text(value: str | int | float) -> str:
    return escape(_CONTROL.sub("\ufffd", f"{value:g}" if isinstance(value, float) else str(value)))


def data_uri(content: bytes) -> str:
    """Return a picture's bytes (WebP or PNG) as a data URL."""
    kind = "png" if content.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def number(value: float | None, form: str) -> str:
    """Format a number, or a dash if there is none; never a negative zero."""
    if value is None:
        return "–"
    text = form.format(value)
    return text.removeprefix("-") if not float(text.replace(",", "").rstrip("%")) else text


def table(
    caption: Child, columns: list[Child], rows: list[list[Child]], class_: str | None = None
) -> Markup:
    """Return a table that scrolls on its own in narrow windows; the first cell heads its row."""
    head = tag("tr", [tag("th", column, scope="col") for column in columns])
    body = [
        tag("tr", tag("th", first, scope="row"), [_cell(cell) for cell in others])
        for first, *others in rows
    ]
    whole = tag(
        "table", tag("caption", caption), tag("thead", head), tag("tbody", body), class_=class_
    )
    label = unescape(re.sub("<.*?>", "", join(caption)))
    return tag("div", whole, class_="wide", tabindex=0, role="region", aria_label=label)


def _cell(cell: Child) -> Markup:
    return cell if isinstance(cell, Markup) and cell.startswith("<td") else tag("td", cell)


def parity_words(parity: str) -> str:
    """A parity for people.

    >>> parity_words("oe")
    'odd under h'
    """
    return dict(
        zip(PARITIES, ("even", "odd under h", "odd under v", "odd under both"), strict=True)
    )[parity]
