"""Where results go, and what may be written there.

Beside its input, a result carries a tag (``photo.decoded.png``); in a folder of its own, or under
a name of its own, it does not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.errors import OutputError
from auravae_cli.pipeline.inputs import STREAM, Source


@dataclass(frozen=True)
class Job:
    """An input and where its result goes: a file, or standard output (None)."""

    source: Source
    output: Path | None


def plan(
    sources: list[Source], output: str | None, suffix: str, tag: str, suffixes: frozenset[str]
) -> tuple[list[Job], list[tuple[Source, OutputError]]]:
    """A place for every result, and the inputs that have none since they collide with another.

    Args:
        sources: the inputs.
        output: what the user named: ``-``, a name that ends in one of ``suffixes`` (a file), any
            other name (a folder), or nothing (beside the inputs; standard input to output).
        suffix: of the results, where the user did not name a file.
        tag: of results beside their inputs, such as ``.decoded``.

    Raises:
        ValueError: several inputs for one output, or a stream for a place without a name.
    """
    folder = None
    if output is not None and output != STREAM:
        path = Path(output)
        if path.suffix.lower() in suffixes and not path.is_dir():
            if len(sources) > 1:
                raise ValueError(
                    f"{len(sources)} inputs cannot all be written to the file {output}"
                )
            return [Job(source, path) for source in sources], []
        folder = path
    elif output == STREAM and len(sources) > 1:
        raise ValueError(f"{len(sources)} inputs cannot all be written to standard output")

    jobs = [Job(source, _place(source, output, folder, suffix, tag)) for source in sources]
    uses = Counter(job.output for job in jobs if job.output is not None)
    unique = [job for job in jobs if job.output is None or uses[job.output] == 1]
    colliding = [
        (
            job.source,
            OutputError(
                f"{job.output} would be the result of {uses[job.output]} inputs; name them apart"
            ),
        )
        for job in jobs
        if job.output is not None and uses[job.output] > 1
    ]
    return unique, colliding


def _place(
    source: Source, output: str | None, folder: Path | None, suffix: str, tag: str
) -> Path | None:
    if folder is not None:
        return folder / source.relative.with_name(source.relative.stem + suffix)
    if output == STREAM or source.path is None:
        return None
    return source.path.with_name(source.path.stem + tag + suffix)


def refuse_to_replace(output: Path, overwrite: bool) -> None:
    """Raise OutputError where a file stands already and may not be replaced."""
    if output.is_dir():
        raise OutputError(f"{output} is a folder: expected a file's name")
    if output.exists() and not overwrite:
        raise OutputError(
            f"{output} exists already and is not the result of this input with these settings; "
            "kept it (replace it with --overwrite)"
        )
