"""Names and records of others are only shown: no terminal sequence, line or markup of theirs works."""

from __future__ import annotations

import ast
import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import auravae_cli
from auravae_cli.cli.terminal.lines import inert
from auravae_cli.latents.latent_file import read_latents

PACKAGE = Path(auravae_cli.__file__).parent
FOLDER = "p["  # with the name a path that is no sound markup
NAME = "a]\x1b[2J\x1b]0;owned\x07\nforged: done\r\x9b1m\u202e[bold]=1"
PICTURE = f"{FOLDER}/{NAME}.png"
LATENT = f"{FOLDER}/{NAME}.safetensors"
WORKING = re.compile(r"\x1b\[2J|\x1b\]0|\x07|\n\s*forged|\x9b|\u202e")
TERMINALS = ["", "stdout stderr"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of its own, for what all tests of this module begin with."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def inputs(auravae, work, picture, made):
    """A hostile picture beside a sound one, the latents of both, and stores of them."""
    if any(made.iterdir()):
        shutil.copytree(made, work, dirs_exist_ok=True)
        return work
    Path(FOLDER).mkdir()
    picture(PICTURE)
    picture(f"{FOLDER}/b.png")
    for name, folder in (("bad", FOLDER), (f"bad{NAME}", FOLDER)):
        Path(folder, f"{name}.jpg").write_text("no picture")
        Path(folder, f"{name}.latent").write_text("no latent")
    auravae("encode", PICTURE, f"{FOLDER}/b.png")
    auravae("encode", FOLDER, "-o", "store", "--layout", "shards", "-q")
    auravae("export", LATENT, f"{FOLDER}/b.safetensors", "--to", "npz", "-o", "npz", "-q")
    shutil.copytree(work, made, dirs_exist_ok=True)
    return work


COMMANDS = {
    "encode": ["encode", FOLDER, "-o", "new"],
    "encode, one": ["encode", PICTURE, "-o", f"{NAME}.safetensors"],
    "encode, twice": ["encode", PICTURE, PICTURE],
    "encode, dry": ["encode", FOLDER, "-o", "new", "--dry-run"],
    "encode to a store": ["encode", FOLDER, "-o", f"new{NAME}", "--layout", "shards"],
    "decode": ["decode", LATENT, f"{FOLDER}/b.safetensors", "-o", "new"],
    "decode a store": ["decode", "store", "-o", "new"],
    "flip": ["flip", "-H", LATENT, f"{FOLDER}/b.safetensors", "-o", "new"],
    "flip a store": ["flip", "-H", "store", "-o", "new"],
    "roundtrip": ["roundtrip", PICTURE, f"{FOLDER}/b.png", f"{FOLDER}/bad.jpg"],
    "info": ["info", LATENT],
    "info of a store": ["info", "store"],
    "show": ["show", PICTURE],
    "show a picture that is none": ["show", f"{FOLDER}/bad{NAME}.jpg"],
    "verify": ["verify", "store"],
    "verify what is no store": ["verify", FOLDER, f"none{NAME}"],
    "export": ["export", LATENT, f"{FOLDER}/b.safetensors", "--to", "npz", "-o", f"new{NAME}"],
    "export a store": ["export", "store", "--to", "npz", "-o", "new"],
    "import": ["import", "npz", "--from", "npz", "-o", "new"],
    "eval": ["eval", FOLDER, "--flips", "1", "--sweeps", "1", "--lpips", "none", "--csv", "t.csv"],
    "doctor": ["doctor", "--model", NAME],
    "bench": ["bench", "--model", NAME],
    "models pull": ["models", "pull", NAME],
    "train": ["train", f"{NAME}.toml", "-o", "run"],
    "no such option": ["encode", PICTURE, f"--x{NAME}"],
    "no such command": [NAME],
    "no such file": ["encode", f"none{NAME}"],
    "a bad value": ["encode", PICTURE, "--memory", NAME],
}


@pytest.mark.parametrize("terminals", TERMINALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_of_a_name_works(auravae, inputs, command, terminals):
    result = auravae(*COMMANDS[command], terminals=terminals)
    for shown in (result.out.decode(), result.err):
        assert not WORKING.search(shown), shown
    assert result.code in (0, 1, 2, 3)
    assert result.out or result.err


def test_a_path_like_markup_does_not_end_a_run(auravae, inputs):
    pictures = [PICTURE, f"{FOLDER}/b.png"]
    assert auravae("encode", *pictures, "-o", "new", terminals="stderr").code == 0


def test_records_are_inert(auravae, inputs):
    path = Path(f"{FOLDER}/b.safetensors")
    latent = read_latents(path)
    record = replace(latent.records[0], source=f"x{NAME}")
    path.write_bytes(replace(latent, records=(record,)).to_bytes())
    result = auravae("info", path)
    assert not WORKING.search(result.text)
    assert "\\x9b1m" in result.text


def test_json_stays_json(auravae, inputs):
    rows = auravae("encode", PICTURE, "-o", "new", "--json").rows
    assert [row["source"] for row in rows] == [PICTURE]


def test_a_spreadsheet_finds_no_formula(auravae, work, picture):
    for name in ("=1+1.png", "@a.png", "+1.png", "-1.png", "b=.png"):
        picture(f"p/{name}")
    auravae("eval", "p", "--flips", "0", "--sweeps", "0", "--lpips", "none", "--csv", "t.csv", "-q")
    with Path("t.csv").open(newline="") as file:
        names = [row["picture"] for row in csv.DictReader(file)]
    assert sorted(names) == ["'+1.png", "'-1.png", "'=1+1.png", "'@a.png", "b=.png"]


def test_what_people_write_is_shown_as_it_is():
    text = "Füße 猫 👨‍👩‍👧 a\\b [x]"
    assert inert(text) == text
    every = "".join(map(chr, range(0x2100)))
    assert inert(every).isprintable() or "\n" not in inert(every)
    assert json.loads(f'"{inert(chr(0x2028))}"') == "\u2028"


PRINTERS = {"print", "Console", "Progress", "echo", "secho", "print_json", "prompt", "confirm"}


def test_there_is_no_other_way_to_the_terminal():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "lines.py" and path.parent.name == "terminal":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            is_write = re.fullmatch(r"sys\.(__)?std(out|err)(__)?\.(write|writelines)", name)
            last = name.rpartition(".")[2]
            is_console = name == "console().print"
            assert not is_write, f"{path}: {name}"
            assert last not in PRINTERS or is_console, f"{path}: {name}"
