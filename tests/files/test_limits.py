"""How much of one input is taken, and how a limit is raised."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

from auravae_cli.errors import ConfigError, InputImageError
from auravae_cli.files.limits import FILE_BYTES, LIMITS, check_environment, parse_size
from auravae_cli.files.mapping import read_file, read_within


def test_a_limit_is_named_with_what_raises_it(monkeypatch):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "1K")
    assert FILE_BYTES.excess(1024) == ""
    assert FILE_BYTES.excess(1025) == (
        "1025 bytes: more than the limit of 1024; raise it with AURAVAE_MAX_FILE_BYTES if you trust "
        "the file"
    )
    with pytest.raises(InputImageError, match="1025 bytes"):
        FILE_BYTES.check(1025, InputImageError)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
@pytest.mark.parametrize("text", ["", "-1", "0", "many", "1e9", "9" * 30, "9" * 5000, "2000P"])
def test_a_malformed_variable_is_refused(monkeypatch, limit, text):
    monkeypatch.setenv(limit.variable, text)
    with pytest.raises(ConfigError, match=limit.variable):
        _ = limit.value
    with pytest.raises(ConfigError, match=limit.variable):
        check_environment()


def test_a_slip_in_a_variable_is_noticed(monkeypatch):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BITES", "1G")
    with pytest.raises(ConfigError, match="BITES: no such limit; there are AURAVAE_MAX_FILE_BYTES"):
        check_environment()


def test_sizes():
    assert [parse_size(text) for text in ("4G", "1.5k", "12MiB", "7", "0.5", "x")] == [
        *(4 << 30, 1536, 12 << 20, 7),
        *(None, None),
    ]


def test_a_file_with_a_hole_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no disk
    with pytest.raises(InputImageError, match="AURAVAE_MAX_FILE_BYTES"):
        read_file(tmp_path / "a.png", FILE_BYTES, InputImageError)


def test_a_stream_is_read_no_further_than_it_may_go(monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            return len(buffer)

    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "5M")
    with pytest.raises(InputImageError, match="more than the limit of 5242880"):
        read_within(io.BufferedReader(Endless()), FILE_BYTES, InputImageError)
    assert read_within(io.BytesIO(b"abc"), FILE_BYTES, InputImageError) == b"abc"


def test_a_pipe_is_read_to_its_end():
    reader, writer = os.pipe()
    os.write(writer, b"abc")
    os.close(writer)
    with open(reader, "rb") as file:  # noqa: PTH123 - a descriptor
        assert read_within(file, FILE_BYTES, InputImageError) == b"abc"


def test_the_documentation_names_every_limit():
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"\| `(AURAVAE_MAX_\w+)` \| (\w+) \|", text))
    assert {name: parse_size(size) for name, size in documented.items()} == {
        limit.variable: limit.default for limit in LIMITS
    }


def test_the_tests_that_the_documentation_names_are_there():
    root = Path(__file__).parents[2]
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_what_stops_a_threat_is_there():
    root = Path(__file__).parents[2]
    text = (root / "SECURITY.md").read_text(encoding="utf-8").partition("## Threats")[2]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    names = [name for row in rows[2:] for name in re.findall(r"`([\w.]+\.[\w.]+)`", row[2])]
    assert len(names) > 30
    for name in names:
        parts = name.split(".")
        path = root / "auravae_cli"
        while parts and (path / parts[0]).is_dir():
            path /= parts.pop(0)
        source = (path / f"{parts.pop(0)}.py").read_text(encoding="utf-8")
        for part in parts:
            assert re.search(
                rf"^ *((async )?def|class) {part}\b|^{part} = ", source, re.MULTILINE
            ), name
