"""Shell completion, asked as shells ask for it: by a run of the program."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
WATCHED = "import sys; from auravae_cli.cli.app import main\ntry: main()\nfinally: "
WATCHED += "print({'torch', 'numpy', 'PIL'} & set(sys.modules), file=sys.stderr)"


def ask(shell: str, *words: str) -> tuple[list[str], str]:
    """What a shell is offered for the last of the words, and the large packages imported."""
    line = " ".join(["auravae", *words])
    asked = {
        "_AURAVAE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    result = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | asked,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout.split(), result.stderr.strip()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["encode", "--model", ""], ["aura", "linear", "small", "small-1"]),
        (["decode", "-m", "s"], ["small", "small-1"]),
        (["models", "pull", ""], ["aura"]),
        (["train", "--device", "c"], ["cpu", "cuda"]),
        (["encode", "--layout", ""], ["auto", "files", "shards"]),
        (["encode", "--overw"], ["--overwrite"]),
        (["fl"], ["flip"]),
    ],
    ids=" ".join,
)
def test_names_and_choices_are_offered(words, offered):
    assert ask("bash", *words) == (offered, "set()")


@pytest.mark.parametrize("words", [["encode", ""], ["encode", "-m", "./checkpoints/a"]])
def test_files_are_left_to_the_shell(words):
    assert ask("bash", *words)[0] == []  # for which its script says `complete -o default`
    assert ask("zsh", *words)[0] == ["_files"]
    assert ask("fish", *words)[0] == []


def test_fish_gets_one_name_a_line():
    assert ask("fish", "encode", "--model", "")[0] == ["aura", "linear", "small", "small-1"]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_the_script_for_bash_works_in_bash(tmp_path):
    program = tmp_path / "auravae"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m auravae_cli "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    lines = [
        'eval "$(_AURAVAE_COMPLETE=source_bash auravae)"',
        "complete -p auravae",
        "COMP_WORDS=(auravae encode --model s); COMP_CWORD=3",
        "_auravae_completion auravae",
        'echo "${COMPREPLY[@]}"',
    ]
    result = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)],
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.splitlines() == [
        "complete -o default -F _auravae_completion auravae",
        "small small-1",
    ], result.stderr
