"""Where a program joins a folder and a name that is not written there: found in its syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

# Words of identifiers that tell a join by ``/`` from a division.
_NAMES = {"name", "names", "key", "shard", "source", "file", "filename", "member", "relative"}
_NAMES |= {"stem", "output", "entry", "label", "path", "place", "text", "suffix", "str"}
_PLACES = {"folder", "path", "root", "parent", "parents", "scratch", "home", "directory", "cache"}
_PLACES |= {"kept", "place", "storage"}
_JOINING = {"joinpath", "with_name", "with_stem", "join"}  # `join` of os.path
_PATHS = {"Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}
_OPENING = {"open", "scandir", "stat", "lstat", "exists", "lexists", "isfile", "isdir", "unlink"}
_OPENING |= {"remove", "mkdir", "makedirs", "replace", "rename", "open_storage", "LocalStorage"}
_OPENING |= {"RemoteStorage", "cat_file", "put_file", "rm_file", "write_atomically", "atomic_file"}


def joins(module: Path, package: Path) -> Iterator[tuple[str, int]]:
    """Each function of a module that joins, as ``module.function``, with the line."""
    name = ".".join(module.relative_to(package).with_suffix("").parts)
    yield from _below(ast.parse(module.read_text(encoding="utf-8")), name)


def _below(tree: ast.AST, where: str) -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(tree):
        inner = where
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{where}.{node.name}"
        if _joins(node):
            yield inner, node.lineno  # type: ignore[attr-defined] # an expression
        yield from _below(node, inner)


def _joins(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        texts = [part for part in ast.walk(node.right) if _is_text(part)]
        about = bool(texts or _words(node.right) & _NAMES or _words(node.left) & _PLACES)
        return about and not _is_written(node.right)
    if isinstance(node, ast.Assign) and "path" in _words(node.targets[0]):
        return any(_is_put_together(part) for part in ast.walk(node.value))
    if not isinstance(node, ast.Call):
        return False
    function = ast.unparse(node.func)
    last, arguments = function.rpartition(".")[2], node.args
    if last in _JOINING and (last != "join" or function.endswith("path.join")):
        return not all(map(_is_written, arguments[last == "join" :]))
    if last in _PATHS and any(isinstance(argument, ast.Starred) for argument in arguments):
        return True
    if last in _PATHS and not all(map(_is_written, arguments[1:])):
        return True
    parts = [part for argument in arguments for part in ast.walk(argument)]
    return last in _OPENING | _PATHS and any(_is_put_together(part) for part in parts)


def _is_written(node: ast.AST) -> bool:
    """Whether a name is a constant of the program."""
    if isinstance(node, ast.Constant):
        return True
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return bool(re.fullmatch(r"_*[A-Z][A-Z0-9_]*", name))


def _is_put_together(node: ast.AST) -> bool:
    """Whether a text has a ``/`` between parts of which one is not written there."""
    if isinstance(node, ast.JoinedStr):
        return any(
            isinstance(part, ast.Constant) and "/" in str(part.value) for part in node.values
        )
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod)):
        return False
    constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return "/" in "".join(map(str, constants)) or "sep" in _words(node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _words(node: ast.AST) -> set[str]:
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    names += [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)]
    return {word for name in names for word in name.lower().split("_")}
