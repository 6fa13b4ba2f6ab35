"""Write docs/cli.md, the reference of every command, from the commands themselves.

    python scripts/make_cli_docs.py [--output docs/cli.md]

Run it after changing a command or an option; a test fails if the page is stale.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from auravae_cli.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
INTRODUCTION = """\
# The command line

<!-- Written by `python scripts/make_cli_docs.py`: change the commands, not this page. -->

Results go to standard output, everything else to standard error. `auravae COMMAND --help` shows the
same text as this page.

## Exit codes

| code | meaning |
|---|---|
| 0 | everything is done |
| 1 | some inputs failed or could not be written; each is named with the reason, the others are done. Or the run was refused or stopped: an input of a store or of `eval` that does not exist, a store of other settings, `--max-failures` |
| 2 | wrong usage |
| 3 | the model or what it needs (weights, a device, a cluster, a package) cannot be used |
| 130 | interrupted |
| 143 | terminated |

## Environment

| variable | meaning |
|---|---|
| `AURAVAE_MODEL` | the model to use without `--model` |
| `AURAVAE_KERNELS` | `plain` turns off the fast kernels: those for GPUs, and those in C for CPUs |
| `AURAVAE_TOKEN` | the token that `auravae serve` asks for ([serve.md](serve.md)) |
| `AURAVAE_MAX_...` | limits of what is read ([SECURITY.md](../SECURITY.md)) |
| `OMP_NUM_THREADS` | how many threads compute |
| `CC` | the compiler that builds the kernels, if they do not come with the package |
| `XDG_CACHE_HOME` | where kernels and measured speeds are kept; by default `~/.cache` |
| `NO_COLOR` | output without colours |
| `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` | where weights from the hub are cached, and how they are downloaded |

## Completion

`auravae --install-completion` sets up the shell that it is called from: bash, zsh, fish or
PowerShell. `--show-completion` prints the script instead. A new shell then completes commands, options, choices,
models, devices and files.
"""
ANYTHING = "\n## `{words}`\n\n    {synopsis}\n\n{description}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=PAGE)
    output = parser.parse_args().output
    output.write_text(cli_reference(), encoding="utf-8")
    print(output)


def cli_reference() -> str:
    """Return the whole page."""
    program = typer.main.get_command(app)
    sections = [_section(("auravae", *words), command) for words, command in _commands(program)]
    return INTRODUCTION + "".join(sections)


def _commands(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that is not a group, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


def _section(words: tuple[str, ...], command: Any) -> str:
    options = [parameter for parameter in command.params if _is_option(parameter)]
    arguments = [parameter for parameter in command.params if not _is_option(parameter)]
    synopsis = " ".join([*words, *["[OPTIONS]"] * bool(options), *map(_argument, arguments)])
    text = ANYTHING.format(
        words=" ".join(words), synopsis=synopsis, description=inspect.cleandoc(command.help or "")
    )
    text += _table("argument", arguments)
    panels = {getattr(option, "rich_help_panel", None): None for option in options}
    for panel in sorted(panels, key=bool):
        if panel is not None:
            text += f"\n### {panel}\n"
        chosen = [o for o in options if getattr(o, "rich_help_panel", None) == panel]
        text += _table("option", chosen)
    return text


def _table(title: str, parameters: list[Any]) -> str:
    if not parameters:
        return ""
    rows = [f"| {_names(parameter)} | {_meaning(parameter)} |" for parameter in parameters]
    return "\n".join(["", f"| {title} | meaning |", "|---|---|", *rows, ""])


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return str(name if parameter.required or name.startswith("[") else f"[{name}]")


def _names(parameter: Any) -> str:
    if not _is_option(parameter):
        return _code(parameter.metavar or parameter.name.upper())
    names = sorted(parameter.opts, key=lambda name: name.startswith("--"))
    value = "" if parameter.is_flag else f" {_value(parameter)}"
    switched_off = "".join(f", {_code(name)}" for name in parameter.secondary_opts)
    return ", ".join([*map(_code, names[:-1]), _code(names[-1] + value)]) + switched_off


def _value(parameter: Any) -> str:
    """The placeholder of an option's value: its metavar, its choices, or its type."""
    kind = parameter.type_descriptor.annotation
    if parameter.metavar:
        return str(parameter.metavar)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(map(_plain, kind))
    return {int: "N", float: "X", Path: "PATH"}.get(kind) or str(parameter.name).upper()


def _meaning(parameter: Any) -> str:
    """The help, with the facts that typer adds to it in a terminal."""
    text = " ".join((parameter.help or "").split()).replace("|", "\\|")
    facts = []
    if _is_option(parameter) and parameter.required:
        facts.append("Required.")
    takes_value = _is_option(parameter) and not parameter.is_flag
    if takes_value and parameter.default is not None and "default" not in text.lower():
        facts.append(f"Default: {_code(_plain(parameter.default))}.")
    if _is_option(parameter) and parameter.secondary_opts and parameter.default is not None:
        chosen = parameter.opts if parameter.default else parameter.secondary_opts
        facts.append(f"Default: {_code(chosen[0])}.")
    if parameter.envvar:
        facts.append(f"Also: {_code(parameter.envvar)} in the environment.")
    return " ".join([text, *facts])


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value.value if isinstance(value, Enum) else value)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


if __name__ == "__main__":
    main()
