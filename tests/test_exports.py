"""The package's public names."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import auravae_cli

SOURCE = Path(auravae_cli.__file__).read_text(encoding="utf-8")


def test_all_is_sorted_and_complete():
    assert auravae_cli.__all__ == sorted({*auravae_cli._HOME, "__version__"})


@pytest.mark.parametrize("name", auravae_cli.__all__)
def test_every_name_resolves(name):
    value = getattr(auravae_cli, name)
    if name in auravae_cli._HOME:
        home = importlib.import_module(f"auravae_cli.{auravae_cli._HOME[name]}")
        assert value is vars(home)[name]
    if callable(value):
        assert value.__doc__


def test_a_star_import_gives_all_of_them():
    names: dict[str, object] = {}
    exec("from auravae_cli import *", names)
    assert names.keys() - {"__builtins__"} == set(auravae_cli.__all__)


def test_what_type_checkers_see_agrees():
    tree = ast.parse(SOURCE)
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            assert alias.asname == alias.name, "`import x as x` says that a name is for others"
            seen[alias.name] = str(statement.module).removeprefix("auravae_cli.")
    assert seen == auravae_cli._HOME


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match=r"'auravae_cli'.*'no_such_name'"):
        auravae_cli.no_such_name  # noqa: B018
    assert not hasattr(auravae_cli, "torch")
