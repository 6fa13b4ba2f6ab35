"""Old names of options and variables: still accepted in this version, with a notice."""

from __future__ import annotations

import os
from collections.abc import Sequence

from auravae_cli.cli.terminal.lines import say

OPTIONS = {"--store": "--latent-dtype", "--engine": "--runner", "--from": "--files-from"}
SYMMETRIZE, HOW = "--symmetrize", frozenset(("auto", "none", "mean", "canonical"))
STILL_THERE = {"import": frozenset(("--from",))}  # commands where the name has another meaning
VARIABLES = {"AURAVAE_ENGINE": "AURAVAE_KERNELS"}


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the current names of options; renamed ones give a notice."""
    command = next((a for a in arguments if not a.startswith("-")), "")
    kept = STILL_THERE.get(command, frozenset())
    result = list(arguments)
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == SYMMETRIZE and command != "eval" and not _says_how(arguments, place):
            say(
                f"note: {SYMMETRIZE} alone is {SYMMETRIZE} mean now; alone it goes with the next version"
            )
            result[place] = f"{SYMMETRIZE}=mean"
        name, equals, value = argument.partition("=")
        if name in OPTIONS and name not in kept:
            say(f"note: {name} is {OPTIONS[name]} now; the old name goes with the next version")
            result[place] = OPTIONS[name] + equals + value
    return result


def _says_how(arguments: Sequence[str], place: int) -> bool:
    """Return whether the option, which had no value in older versions, is followed by one."""
    return bool({*arguments[place + 1 : place + 2]} & HOW)


def take_new_variables() -> None:
    """Set the current variables from the old ones, if only those are set."""
    for old, new in VARIABLES.items():
        if old in os.environ and new not in os.environ:
            say(f"note: {old} is {new} now; the old name goes with the next version")
            os.environ[new] = os.environ[old]
