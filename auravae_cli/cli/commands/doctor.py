"""auravae doctor"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.reports.followed import Followed
from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import console, inert, tell, tell_json
from auravae_cli.defaults import DEFAULT_MODEL

if TYPE_CHECKING:
    from auravae_cli.diagnostics.doctor import Check

_MARKS = {"ok": "ok", "warning": "!", "failed": "FAILED", "skipped": "-"}
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def doctor(
    model: opt.Model = DEFAULT_MODEL,
    side: Annotated[
        int,
        typer.Option(
            min=8,
            metavar="N",
            help="Check that a picture of N x N pixels fits into memory.",
        ),
    ] = 1024,
    as_json: Annotated[bool, opt.json_per("check")] = False,
    quiet: opt.Quiet = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
) -> None:
    """Check this installation: device, weights, golden round trip, flips, NaN, network, memory.

    Examples:

        auravae doctor
        auravae doctor --model aura --device cuda

    The exit code is 0 if no check failed, 1 if one did, 3 if the model cannot
    be loaded.
    """
    from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED
    from auravae_cli.cli.reports.values import counted
    from auravae_cli.cli.shared.numbers import parse_bytes
    from auravae_cli.diagnostics.doctor import FAILED, diagnose

    def hear(check: Check) -> None:
        if as_json:
            tell_json(asdict(check))
        elif check.status == FAILED or not quiet:
            _print(check)

    with Followed(hear, hidden=quiet) as progress:
        found = diagnose(
            model,
            side=side,
            device=device,
            dtype=dtype.value,
            memory=parse_bytes(memory, "--memory"),
            progress=progress,
        )
    failed = len(found.failed)
    if not (as_json or quiet):
        tell(f"{counted(failed, 'check')} failed" if failed else "all is well")
    sys.stdout.flush()
    raise typer.Exit(0 if not failed else EXIT_SOME_FAILED if found.is_model_usable else 3)


def _print(check: Check) -> None:
    """Print a line for a check, and one with advice."""
    lines = [f"{_MARKS[check.status]:<7}{check.name:<9}{check.finding}"]
    if check.advice and check.status != "ok":
        lines.append(f"{'':<16}-> {check.advice}")
    if not sys.stdout.isatty():
        tell(*lines, flush=True)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    table.add_column(width=6, style=_COLOURS[check.status])
    table.add_column(width=8)
    table.add_column(overflow="fold")
    table.add_row(_MARKS[check.status], check.name, inert(check.finding))
    if len(lines) > 1:
        table.add_row("", "", inert(f"-> {check.advice}"))
    console().print(table)
