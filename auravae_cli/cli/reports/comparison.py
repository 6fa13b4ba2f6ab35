"""The output of `auravae eval --compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auravae_cli.cli.reports.outcomes import print_table
from auravae_cli.cli.terminal.lines import say, tell_json

_MARKS = {"better": "better", "worse": "WORSE", "same": ""}


def report_comparison(found: Mapping[str, Any], as_json: bool) -> None:
    """Print what changed, with intervals; as one line of JSON if that is wanted."""
    if as_json:
        tell_json({"kind": "comparison", **found})
        return
    for model in found["models"]:
        first, second = model["first"], model["second"]
        named = first if first == second else f"{first} -> {second}"
        print_table(
            f"{named}, {model['pictures']} pictures in common",
            ["number", "n", "A", "B", "B - A", "95 % of means", ""],
            [
                [
                    numbers["name"],
                    numbers["pictures"],
                    _number(numbers["first"]),
                    _number(numbers["second"]),
                    _signed(numbers["change"]),
                    " to ".join(map(_signed, numbers["interval"])),
                    _MARKS[numbers["verdict"]],
                ]
                for numbers in model["numbers"]
            ],
        )
    for note in found["notes"]:
        say(f"note: {note}")


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.3f}"


def _signed(value: float) -> str:
    text = f"{value:+.4f}"
    return text if float(text) else "0"
