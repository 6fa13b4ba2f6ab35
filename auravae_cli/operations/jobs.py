"""From names to jobs: what every operation on files begins with, and its dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from auravae_cli.errors import AuraVaeError, UsageError
from auravae_cli.files.places import local_name
from auravae_cli.operations.batches import Outcome, failed
from auravae_cli.operations.inputs import Source, collect
from auravae_cli.operations.names import none_found
from auravae_cli.operations.outputs import Job, plan
from auravae_cli.operations.suffixes import LATENTS

Names: TypeAlias = str | Path | Iterable[str | Path]  # of files, folders, patterns


def listed(names: Names) -> list[str]:
    """The names in a list, however many were given. Raises UsageError if one is empty."""
    given = [names] if isinstance(names, str | Path) else list(names)
    if "" in given:
        raise UsageError("an empty name: is a variable in the command not set?")
    return [local_name(str(name)) for name in given]


def place_of(output: str | Path | None) -> str | None:
    """The place of results as it was named, if it was. Raises UsageError if the name is empty."""
    return None if output is None else named_place(output)


def named_place(output: str | Path) -> str:
    """The place of results as it was named. Raises UsageError if the name is empty."""
    if output == "":
        raise UsageError("an empty name: is a variable in the command not set?", "output")
    return local_name(str(output))


def plan_jobs(
    names: Names,
    output: str | Path | None,
    *,
    input_suffixes: Iterable[str],
    suffix: str,
    tag: str,
    output_suffixes: Iterable[str],
    result_tags: frozenset[str],
    expand: Callable[[Source], Iterable[Source]] = lambda source: [source],
    passed_over: Counter[str] | None = None,
) -> tuple[list[Job], list[Outcome]]:
    """The jobs, and the outcomes of inputs that have no place of their own: these have failed.

    ``expand`` gives the inputs that a file holds, where it holds several; ``passed_over`` is as for
    `collect`. Raises UsageError where
    nothing is named, or the output cannot take it.
    """
    texts = listed(names)
    try:
        files = collect(texts, input_suffixes, result_tags, passed_over)
        sources = [source for file in files for source in expand(file)]
    except UsageError:
        raise
    except AuraVaeError as error:
        raise UsageError(str(error)) from error
    if not sources:
        wanted = frozenset(input_suffixes)
        kind = "latents" if wanted <= LATENTS else "pictures"
        raise none_found(texts, wanted, f"{kind}, folders or patterns of them, or -")
    place = place_of(output)
    try:
        jobs, refused = plan(sources, place, suffix, tag, frozenset(output_suffixes))
    except ValueError as error:
        raise UsageError(str(error), "output") from error
    return jobs, [failed(source.name, str(error)) for source, error in refused]
