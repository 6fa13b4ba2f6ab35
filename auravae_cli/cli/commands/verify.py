"""auravae verify"""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import say, tell, tell_json
from auravae_cli.cli.terminal.live import Live

if TYPE_CHECKING:
    from auravae_cli.store.verify import Finding

_COUNTS = ("shards", "rows", "failures", "bytes")


def verify(
    stores: Annotated[
        list[str], typer.Argument(metavar="STORE...", help="Stores of latents: folders or URLs.")
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Check sizes and headers only; read no values.")
    ] = False,
    as_json: Annotated[bool, opt.json_per("finding and per store")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Check every file, header, value and key of a store against its manifests.

    Examples:

        auravae verify store
        auravae verify store --quick --json

    The exit code is 0 if all stores are sound, 1 if any has a fault. Notes are
    not faults.
    """
    from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED
    from auravae_cli.cli.reports.values import counted
    from auravae_cli.store.verify import verify_store

    sound = True
    for store in stores:
        with Live(f"checking {store}", hidden=quiet):
            report_finding = partial(_tell, store, as_json, quiet)
            report = verify_store(store, quick=quick, progress=report_finding)
        sound = sound and not report.faults
        counts = {name: getattr(report, name) for name in _COUNTS}
        if as_json:
            tell_json({"store": store, **counts, "faults": report.faults})
        elif not quiet:
            verdict = counted(report.faults, "fault") if report.faults else "sound"
            held = (counted(number, name.removesuffix("s")) for name, number in counts.items())
            text = f": {', '.join(held)}" if report.is_store else ""
            tell(f"{store}: {verdict}{text}", flush=True)
    sys.stdout.flush()
    raise typer.Exit(0 if sound else EXIT_SOME_FAILED)


def _tell(store: str, as_json: bool, quiet: bool, finding: Finding) -> None:
    if as_json:
        tell_json({"store": store, **asdict(finding)})
    elif finding.kind == "fault" or not quiet:
        place = f"{store}/{finding.file}" if finding.file else store
        say(f"{finding.kind}: {place}: {finding.text}")
