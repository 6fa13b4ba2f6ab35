"""From parsed arguments to jobs: the steps that encode, decode, flip and roundtrip share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable

import typer

from auravae_cli.cli.reports.outcomes import Reporter
from auravae_cli.errors import AuraVaeError
from auravae_cli.operations.batches import failed
from auravae_cli.operations.inputs import STREAM, Source, collect
from auravae_cli.operations.outputs import Job, plan


def plan_jobs(
    names: list[str],
    output: str | None,
    *,
    input_suffixes: Iterable[str],
    suffix: str,
    tag: str,
    output_suffixes: Iterable[str],
    result_tags: frozenset[str],
    reporter: Reporter,
    expand: Callable[[Source], Iterable[Source]] = lambda source: [source],
) -> list[Job]:
    """The jobs; inputs without a place of their own are reported as failed.

    ``expand`` gives the inputs that a file holds, where it holds several.

    Ends with a usage error where nothing is named, or the output cannot take it.
    """
    try:
        passed_over = Counter[str]() if ".png" in (known := frozenset(input_suffixes)) else None
        files = collect(names, known, result_tags, passed_over)
        sources = [source for file in files for source in expand(file)]
    except AuraVaeError as error:
        raise typer.BadParameter(str(error)) from error
    reporter.tell_passed_over(passed_over or {})
    if not sources:
        found = "the folders named hold none" if names else "none was named"
        raise typer.BadParameter(f"no input: {found}; expected files, folders, patterns or -")
    try:
        jobs, colliding = plan(sources, output, suffix, tag, frozenset(output_suffixes))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
    if sum(job.output is None for job in jobs) > 1:
        raise typer.BadParameter("only one input can go to standard output", param_hint=STREAM)
    reporter.data_on_stdout = any(job.output is None for job in jobs)
    if reporter.data_on_stdout and sys.stdout.isatty():
        raise typer.BadParameter(
            "binary data on a terminal: pipe it, or name a file", param_hint="--output"
        )
    for source, collision in colliding:
        reporter.report(failed(source.name, str(collision)))
    return jobs
