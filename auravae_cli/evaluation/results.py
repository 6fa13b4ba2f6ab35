"""The results of an evaluation as they come: one JSON line per picture and model, never rewritten.

A line is identified by what was measured: the bytes of the picture, the weights, the settings. So a
run that is started again resumes, and one with more models or pictures measures only those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auravae_cli.errors import OutputError
from auravae_cli.evaluation.row import read_row
from auravae_cli.files.canonical_json import canonical, read_json
from auravae_cli.store.settings import require_format

RESULTS_FILE, SUMMARY_FILE = "results.jsonl", "summary.json"
FORMAT, FORMAT_VERSION = "auravae-eval", 2


def identity(picture_sha256: str, settings: Mapping[str, Any]) -> str:
    """Return what identifies a line: the picture, and everything that its numbers depend on."""
    return hashlib.sha256(canonical([picture_sha256, settings])).hexdigest()


class Results:
    """The lines of a folder, or only in memory if there is none.

    Raises:
        OutputError: the folder's file is not a results file, or cannot be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / RESULTS_FILE if folder else None
        self._rows: dict[str, dict[str, Any]] = {}
        self._is_cut_off = False
        if self._path is not None:
            self._read(self._path)

    def find(self, key: str, wanted: frozenset[str]) -> dict[str, Any] | None:
        """Return the line of that identity, if it has the wanted sections."""
        row = self._rows.get(key)
        return row if row and all(row.get(section) is not None for section in wanted) else None

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Add a line, and write it if there is a folder. Raises OutputError."""
        self._rows[key] = row
        if self._path is None:
            return
        line = canonical({"format": FORMAT, "format_version": FORMAT_VERSION, "id": key, **row})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(b"\n" * self._is_cut_off + line)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._is_cut_off = False

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
        self._is_cut_off = bool(content) and not content.endswith(b"\n")
        for number, line in enumerate(content.splitlines()):
            row = parse_line(line)
            if row is not None:
                self._rows[row.pop("id")] = row
            elif number == 0 and content.count(b"\n") > 0 and not _is_of_another_version(line):
                raise OutputError(
                    f"{path}: no results of auravae eval: name another folder with -o"
                )
            # otherwise it was cut off by a crash or a full disk, or another version wrote it, which
            # measures less or more: it stays, and is measured again


def _is_of_another_version(line: bytes) -> bool:
    try:
        content = read_json(line)
    except ValueError:
        return False
    return (
        isinstance(content, dict)
        and content.get("format") == FORMAT
        and content.get("format_version") != FORMAT_VERSION
    )


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return a line of the current format as its row, with its ``id``; None if it is not one."""
    try:
        content = read_json(line)
        require_format(content, FORMAT, FORMAT_VERSION)
        return read_row(content)
    except ValueError:
        return None
