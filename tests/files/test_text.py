"""Text files of users: what decodes, and what the message says of what does not."""

from __future__ import annotations

import pytest

from auravae_cli.files.text import decode_text, split_lines


def test_a_byte_order_mark_is_no_text() -> None:
    assert decode_text(b"\xef\xbb\xbfa cat") == decode_text(b"a cat") == "a cat"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"UTF-(16|32).*: save it as UTF-8"):
        decode_text("p/a.png\n".encode(encoding))


def test_the_line_that_is_no_text_is_named() -> None:
    with pytest.raises(ValueError, match="not UTF-8: byte 0x92 in line 2: save it as UTF-8"):
        decode_text(b"a\nit\x92s")


def test_only_line_feeds_end_lines() -> None:
    odd = "a\u2028b\x85c\x0bd\x0ce\x1cf"
    assert split_lines(f"{odd}\r\nb\n") == [odd, "b", ""]
