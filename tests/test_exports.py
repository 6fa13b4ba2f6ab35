"""The package's public names."""

from __future__ import annotations

import ast
import importlib
import textwrap
from pathlib import Path

import pytest

import auravae_cli
from tests.test_rooms import doings

REPOSITORY = Path(__file__).parents[1]
PROGRAMS = sorted([*REPOSITORY.glob("benchmarks/*.py"), *REPOSITORY.glob("scripts/*.py")])
# What is fed with garbage, or compared with others, is an inner part; or stores are written and looked at by hand.
INNER = {"fuzz.py", "kills.py", "measures.py", "reading.py"}
NOT_OFFERED = (
    "auravae_cli.train.",
    "auravae_cli.evaluation.page.",
)  # rooms whose inner parts programs need
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


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_use_the_public_names(path):
    source = path.read_text(encoding="utf-8")
    assert inner_imports(source) == []
    if path.name not in INNER:
        body = f"def everything():\n{textwrap.indent(source, '    ')}"
        (calls,) = doings(body.replace("from __future__ import annotations", "")).values()
        assert {call for call in calls if not call.startswith(NOT_OFFERED)} == set()


def inner_imports(source: str) -> list[str]:
    """The imports from within the package of names that the package itself offers."""
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("auravae_cli.")
        for alias in node.names
        if auravae_cli._HOME.get(alias.name) == str(node.module).removeprefix("auravae_cli.")
    ]


def test_the_check_of_programs_would_notice():
    line = "from auravae_cli.operations.encode import encode_files, encode_jobs"
    assert inner_imports(line) == ["auravae_cli.operations.encode.encode_files"]
    assert doings(f"def f():\n    {line}")["f"] == {
        "auravae_cli.operations.encode.encode_files",
        "auravae_cli.operations.encode.encode_jobs",
    }


def test_the_package_goes_by_the_name_of_its_program_too():
    import auravae

    assert set(dir(auravae)) == set(auravae.__all__) == set(auravae_cli.__all__)
    assert auravae.load_codec is auravae_cli.load_codec
    assert auravae.__version__ == auravae_cli.__version__
    with pytest.raises(AttributeError, match="'auravae' has no attribute 'no_such_name'"):
        auravae.no_such_name  # noqa: B018
