"""Read a TOML file into frozen dataclasses."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from auravae_cli.errors import ConfigError
from auravae_cli.files.kinds import kind_of_file
from auravae_cli.files.text import decode_text
from auravae_cli.files.typed import Faults, read_as

Config = TypeVar("Config")


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file into a frozen dataclass; tables become the dataclasses of its fields.

    Raises:
        ConfigError: lists every unknown, missing or mistyped key, and the ``faults`` of any of the
            dataclasses.
    """
    other = kind_of_file(path)
    if other is not None or path.is_dir():
        raise ConfigError(f"{path}: {other.name if other else 'a folder'}: expected a file in TOML")
    try:
        table = tomllib.loads(decode_text(path.read_bytes()))
    except RecursionError:
        raise ConfigError(f"{path}: cannot be read as TOML: nested too deeply") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    try:
        return read_as(kind, table)
    except Faults as error:
        raise ConfigError(f"{path}:", *(f"  {fault}" for fault in error.lines)) from None
