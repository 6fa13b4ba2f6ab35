"""Imports point one way: a room imports only rooms before it, and no modules import each other.

A room is a folder of the package, or a folder of one of those that have their own order within.
The order is that of docs/architecture.md. Imports within functions count as well, for the order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import auravae_cli

PACKAGE = Path(auravae_cli.__file__).parent
ROOMS = (
    *("errors", "version", "defaults", "flip_hook"),
    *("symmetry", "files", "machine", "images", "latents"),
    *("model.spec", "model.planning", "model.checkpoints", "model.cpu"),
    *("model.network", "model.gpu", "model"),
    *("store", "operations", "serve", "datasets", "adapters", "forecast"),
    *("exchange.formats", "exchange", "train"),
    *("evaluation.page", "evaluation", "diagnostics"),
    *("cli.terminal", "cli.shared", "cli.reports", "cli.commands", "cli"),
    *("__init__", "__main__"),
)
PLACES = {room: place for place, room in enumerate(ROOMS)}


def room_of(module: str) -> str:
    """The room of a module such as ``auravae_cli.model.cpu.native``."""
    _, *path = module.split(".")
    inner = ".".join(path[:2])
    if not path:
        return "__init__"
    return inner if inner in PLACES else path[0]


def imports(module: str, source: str) -> Iterator[tuple[str, bool]]:
    """The modules of the package that one imports, and whether it does so when it runs, not for types alone."""
    tree = ast.parse(source)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in node.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("auravae_cli"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if is_module(name) else str(node.module) for name in names]
        elif isinstance(node, ast.Import):
            found = [name.name for name in node.names if name.name.startswith("auravae_cli")]
        else:
            continue
        for name in found:
            if name != module:
                yield name, id(node) not in for_types


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or a folder of the package."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def breaches(module: str, source: str) -> list[str]:
    """The imports of a module that point the wrong way."""
    here = PLACES[room_of(module)]
    return [
        f"{module} imports {name}: {room_of(name)} comes after {room_of(module)}"
        for name, _ in imports(module, source)
        if room_of(name) != room_of(module) and PLACES[room_of(name)] > here
    ]


def modules() -> dict[str, str]:
    """Every module of the package, and its source."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


MODULES = modules()


def test_imports_point_one_way():
    assert [breach for name, source in MODULES.items() for breach in breaches(name, source)] == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("auravae_cli.files.tars", "from auravae_cli.latents.record import Record"),
        (
            "auravae_cli.store.verify",
            "def f():\n    import auravae_cli.model.codec as c\n    import auravae_cli.operations.encode",
        ),
        ("auravae_cli.model.spec.config", "from auravae_cli.model import codec"),
        ("auravae_cli.symmetry.group", "from auravae_cli import load_codec"),
    ],
)
def test_the_check_would_notice(module, statement):
    assert len(breaches(module, statement)) == 1


def test_no_modules_import_each_other():
    graph = {
        name: {other for other, runs in imports(name, source) if runs}
        for name, source in MODULES.items()
    }
    TopologicalSorter(graph).prepare()
    graph["auravae_cli.errors"] = {"auravae_cli.model.codec"}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


DOING = frozenset(
    (
        "store",
        "operations",
        "serve",
        "datasets",
        "adapters",
        "forecast",
        "exchange.formats",
        "exchange",
    )
    + ("train", "evaluation", "evaluation.page", "diagnostics")
)


def doings(source: str) -> dict[str, set[str]]:
    """The functions of the doing rooms that each function of a command imports.

    Classes and constants, which hold what is asked for and what came out, are none, nor are
    questions (``is_store``).
    """
    body = ast.parse(source).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    shared = [node for node in body if isinstance(node, ast.ImportFrom)]
    return {
        function.name: {
            f"{node.module}.{alias.name}"
            for node in [*shared, *ast.walk(function)]
            if isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("auravae_cli")
            and room_of(str(node.module)) in DOING
            for alias in node.names
            if alias.name.islower() and not alias.name.startswith("is_")
        }
        for function in functions
    }


@pytest.mark.parametrize(
    "command", [n for n in MODULES if n.startswith("auravae_cli.cli.commands.")]
)
def test_a_command_makes_one_call(command):
    found = doings(MODULES[command])
    assert {name: calls for name, calls in found.items() if len(calls) > 1} == {}


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ("    from auravae_cli.operations.encode import encode_files, plan_encode", 2),
        ("    from auravae_cli.store.flip import StoreFlipper, flip_store", 1),
        ("    from auravae_cli.store.names import SETTINGS_FILE, is_store", 0),
        (
            "    from auravae_cli.evaluation import session\n    from auravae_cli.store import flip",
            2,
        ),
        ("    from auravae_cli.model.codec import load_codec", 0),
    ],
)
def test_the_check_of_calls_would_notice(lines, number):
    assert [len(calls) for calls in doings(f"def f():\n{lines}\n").values()] == [number]


def test_the_top_holds_nothing_but_the_face():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    face = {"__init__.py", "__main__.py", "defaults.py", "errors.py", "version.py", "flip_hook.py"}
    assert files == face | {"py.typed"}


def test_every_room_says_what_it_is():
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and any(path.glob("*.py"))]
    assert len(folders) > 20
    for folder in folders:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), (
            folder
        )
