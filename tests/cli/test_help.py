"""The help of every command: a sentence, two or three examples that work, options in panels."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import groupby

import pytest
import typer

from auravae_cli.cli.app import app
from auravae_cli.cli.command_table import _build
from auravae_cli.cli.shared import options as opt

ROOT = typer.main.get_command(app)
PANELS = {opt.INPUT, opt.PICTURE, opt.MODEL, "Measurements", opt.OUTPUT, opt.RUNNING, opt.STORE}
# Examples that need a network, a dataset or minutes; they are parsed only.
NOT_RUN = ("serve", "train", "models pull", "doctor --model aura")
NOT_RUN_EXACTLY = {"bench"}


def walk(command, words=()) -> Iterator[tuple[str, object]]:
    """Every command and group with the words that call it."""
    yield " ".join(words), command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*words, name))


COMMANDS = dict(walk(ROOT))
EXAMPLES = {
    words: re.findall(r"^    auravae (.+)$", command.help, re.MULTILINE)
    for words, command in COMMANDS.items()
}
ALL_EXAMPLES = [example for examples in EXAMPLES.values() for example in examples]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words or "auravae")
def test_help_starts_with_a_sentence_and_examples(words):
    sentence, examples, *rest = re.split(r"\n\nExamples:\n\n|\n\n", COMMANDS[words].help)
    assert sentence.endswith(".") and "\n" not in sentence
    lines = examples.splitlines()
    assert len(lines) in (2, 3)
    assert all(line.startswith(f"    auravae {words}") for line in lines)
    assert rest, "without a paragraph after them, examples lose their indentation"


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words or "auravae")
def test_help_fits_a_terminal_of_80_columns(words, auravae, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = auravae(*words.split(), "--help")
    assert result.code == 0
    lines = result.text.splitlines()
    assert max(map(len, lines)) <= 80
    paragraphs = COMMANDS[words].help.partition("Examples:")[2].splitlines()
    for line in filter(None, paragraphs):  # whole, where the author broke them
        assert f" {line.replace(chr(92), '')}" in [shown.rstrip() for shown in lines]


@pytest.mark.parametrize("example", ALL_EXAMPLES)
def test_examples_parse(example):
    command, words = ROOT, shlex.split(example)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("auravae", words)


def test_examples_work_as_they_stand(auravae, work, picture):
    """Each in turn in one folder: some take what those before them made."""
    picture("photo.jpg", 40, 48)
    for number in range(3):
        picture(f"photos/{number}.png", 32, 40 + 8 * number, number)
    assert auravae("encode", "photos", "-o", "store", "--layout", "shards").code == 0
    ran = 0
    for example in dict.fromkeys(ALL_EXAMPLES):
        if example.startswith(NOT_RUN) or example in NOT_RUN_EXACTLY:
            continue
        result = auravae(*shlex.split(example))
        assert result.code == 0, f"auravae {example}\n{result.err}"
        ran += 1
    assert ran >= 20


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words or "auravae")
def test_options_are_in_panels(words):
    options = [p for p in COMMANDS[words].params if p.param_type_name == "option"]
    panels = [getattr(option, "rich_help_panel", None) for option in options]
    assert set(panels) <= PANELS | {None}
    first = panels.count(None)
    assert first <= 6, "the options most people need are few"
    assert panels[:first] == [None] * first, "they come first in the signature, too"
    blocks = [panel for panel, _ in groupby(panels)]
    assert len(blocks) == len(set(blocks)), "options of a panel stand together"


def test_a_command_has_both_options_for_help_whatever_first_asked_for_its_own() -> None:
    """click keeps the option that it makes for the first context: without a parent, that had no -h."""
    _build.cache_clear()
    for name in ("roundtrip", "models"):
        command = _build(name)
        for each in (command, *getattr(command, "commands", {}).values()):
            option = each.get_help_option(each.context_class(each))
            assert option is not None and set(option.opts) == {"-h", "--help"}
