"""Braces as bash expands them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from auravae_cli.files.patterns import expand_braces

SPELT = [
    *(
        "{00..100}",
        "{10..8}",
        "{a..c}",
        "{0..10..5}",
        "{1..3..0}",
        "{3..1..2}",
        "{-2..2}",
        "{e..a..-2}",
    ),
    *(
        "x{a,b{1..2},{c,d}e}y",
        "{a,{b,{c,d}}}",
        "{a}",
        "{}",
        "{a,}",
        "{,a}",
        "a{b",
        "a}b",
        "{a{b,c}}",
    ),
    *(
        "{a,b}{1,2}",
        "{01..3}",
        "{1..03}",
        "{-01..1}",
        "{1..a}",
        "{1..}",
        "{a..c}{1..2}.tar",
        "plain",
    ),
    *("{{a,b}", "{a,b}}", "{a,b}{", "{0..0}", "t-{000000..000002}.tar"),
]


@pytest.mark.parametrize("text", SPELT)
def test_braces_are_those_of_bash(text: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    said = subprocess.run(
        [bash, "-c", f"printf '%s\\n' pre{text}post"], capture_output=True, text=True, check=True
    )
    assert expand_braces(f"pre{text}post") == said.stdout.splitlines()
