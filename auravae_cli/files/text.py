"""Text files of users: captions, labels, lists, configs. The one place that decodes them."""

from __future__ import annotations

import codecs

_OTHERS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, which it begins like
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decode_text(content: bytes) -> str:
    r"""Return the text of a file in UTF-8, with or without a byte-order mark. Raises ValueError.

    >>> decode_text(b"\xef\xbb\xbfa cat"), decode_text(b"a cat")
    ('a cat', 'a cat')
    """
    for mark, name in _OTHERS.items():
        if content.startswith(mark):
            raise ValueError(f"it is {name}: save it as UTF-8")
    if b"\0" in content[:1024]:
        raise ValueError("it holds NUL characters, as UTF-16 does: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ValueError(
            f"not UTF-8: byte 0x{byte:02x} in line {line}: save it as UTF-8"
        ) from error


def split_lines(text: str) -> list[str]:
    """Return the lines of a text. Only line feeds end one, with or without a carriage return.

    Names may have what `str.splitlines` takes for an end: a form feed, U+0085, U+2028.

    >>> split_lines("a\\r\\nb\\u2028c\\n")
    ['a', 'b\\u2028c', '']
    """
    return [line.removesuffix("\r") for line in text.split("\n")]
