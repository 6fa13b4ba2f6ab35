"""auravae verify"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import say, tell, tell_json

if TYPE_CHECKING:
    from auravae_cli.store.verify import Finding, VerifyState


def verify(
    stores: Annotated[
        list[str], typer.Argument(metavar="STORE...", help="Stores of latents: folders or URLs.")
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Check sizes and headers only; read no values.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per finding and per store on standard output.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = False,
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
    from auravae_cli.errors import AuraVaeError
    from auravae_cli.files.storage import open_storage
    from auravae_cli.store.verify import Finding, VerifyState, verify_store

    sound = True
    for store in stores:
        seen, faults = VerifyState(), 0
        try:
            for finding in verify_store(open_storage(store), seen, quick=quick):
                faults += finding.kind == "fault"
                _tell(store, finding, as_json, quiet)
        except AuraVaeError as error:
            faults += 1
            _tell(store, Finding("fault", "", str(error)), as_json, quiet)
        sound = sound and not faults
        if as_json:
            tell_json({"store": store, **_counts(seen), "faults": faults})
        elif not quiet:
            counts = ", ".join(f"{number} {name}" for name, number in _counts(seen).items())
            tell(f"{store}: {f'{faults} faults' if faults else 'sound'}: {counts}", flush=True)
    sys.stdout.flush()
    raise typer.Exit(0 if sound else EXIT_SOME_FAILED)


def _tell(store: str, finding: Finding, as_json: bool, quiet: bool) -> None:
    if as_json:
        tell_json({"store": store, **asdict(finding)})
    elif finding.kind == "fault" or not quiet:
        place = f"{store}/{finding.file}" if finding.file else store
        say(f"{finding.kind}: {place}: {finding.text}")


def _counts(seen: VerifyState) -> dict[str, int]:
    return {
        "shards": seen.shards,
        "rows": seen.rows,
        "failures": seen.failures,
        "bytes": seen.bytes,
    }
