"""The commands by name. Each is imported and built when it is asked for, since building all takes longer than
`auravae flip` itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from auravae_cli.cli.shared.streams import take_names
from auravae_cli.errors import UsageError

PANELS = {
    "Pictures and latents": ("encode", "decode", "flip", "roundtrip", "show"),
    "Latents and stores": ("info", "verify", "export", "import"),
    "Models": ("eval", "train", "models"),
    "This machine": ("serve", "doctor", "bench"),
}
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
_PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
_FUNCTIONS = {"import": "import_", "eval": "evaluate"}  # Python reserves or uses these names


class CommandTable(Mapping[str, Any]):
    """The commands by name, in the order of the help."""

    def __getitem__(self, name: str) -> Any:
        return _build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_PANEL_OF)

    def __len__(self) -> int:
        return len(_PANEL_OF)


class _Command(TyperCommand):
    """A command; usage errors of the library are reported for its options."""

    def parse_args(self, ctx: Any, args: Any) -> Any:
        return super().parse_args(ctx, take_names(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            option = error.argument and f"--{error.argument.replace('_', '-')}"
            raise typer.BadParameter(str(error), ctx=ctx, param_hint=option) from error


@cache
def _build(name: str) -> Any:
    """Return a command. Raises KeyError."""
    panel, function = _PANEL_OF[name], _FUNCTIONS.get(name, name)
    module = import_module(f"auravae_cli.cli.commands.{function}")
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False)
        group.command(name, cls=_Command)(getattr(module, function))
    built = typer.main.get_command(group)
    built.name, built.rich_help_panel = name, panel  # type: ignore[attr-defined]  # both kinds have it
    for command in (built, *getattr(built, "commands", {}).values()):
        # It keeps the option that it makes for the first context that asks, which may know no -h.
        command.get_help_option(command.context_class(command, **HELP_OPTIONS))
    return built
