"""Where results go, and what may be written there.

A result beside its input has a tag (``photo.decoded.png``); in another folder, or under its own name,
it has none.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from auravae_cli.defaults import STREAM
from auravae_cli.errors import ExistingOutputError, OutputError
from auravae_cli.files.atomic import write_atomically
from auravae_cli.files.kinds import store_around
from auravae_cli.files.places import below, is_remote
from auravae_cli.files.spelling import lookalikes, tells_apart
from auravae_cli.operations.inputs import Source
from auravae_cli.operations.suffixes import LATENTS, PICTURES


@dataclass(frozen=True)
class Job:
    """An input and the place of its result: a file, or standard output (None)."""

    source: Source
    output: Path | None


def plan(
    sources: list[Source], output: str | None, suffix: str, tag: str, suffixes: frozenset[str]
) -> tuple[list[Job], list[tuple[Source, OutputError]]]:
    """Return a job for every input with a place for its result, and the other inputs with the reason.

    Some results would leave the named folder; others collide, also by names that the file system does not
    distinguish.

    Args:
        sources: the inputs.
        output: what the user named: ``-``, a name that ends in one of ``suffixes`` (a file), any
            other name (a folder), or nothing (beside the inputs; standard input to output).
        suffix: of the results, if the user did not name a file.
        tag: of results beside their inputs, such as ``.decoded``.

    Raises:
        ValueError: several inputs for one output, an unsupported kind of file, or a remote place.
    """
    folder = None
    if output is not None and is_remote(output):
        raise ValueError(f"{output}: only stores are written to remote places, not single files")
    if output is not None and output != STREAM:
        path, is_folder = Path(output), output.endswith(("/", os.sep))
        ending = "" if is_folder else path.suffix.lower()
        if ending in (LATENTS | PICTURES) - suffixes and not os.path.exists(path):
            raise ValueError(
                f"{output}: expected a folder, or a file that ends in {' '.join(sorted(suffixes))}"
            )
        if ending in suffixes and not os.path.isdir(path):
            if len(sources) > 1:
                raise ValueError(
                    f"{len(sources)} inputs cannot all be written to the file {output}"
                )
            if reason := why_not_there(path):
                raise ValueError(reason)
            return [Job(source, path) for source in sources], []
        if os.path.isfile(path):
            raise ValueError(f"{output}: expected a folder, and a file is there")
        folder = path
    elif output == STREAM and len(sources) > 1:
        raise ValueError(f"{len(sources)} inputs cannot all be written to standard output")

    jobs, refused = list[Job](), list[tuple[Source, OutputError]]()
    store_of = cache(lambda folder: store_around(folder / "result"))
    for source in sources:
        try:
            job = Job(source, _place(source, output, folder, suffix, tag))
            if job.output is not None and (store := store_of(job.output.parent)):
                beside = (
                    f"it lies in the store {store}: name that, and a place for the result with -o"
                )
                raise OutputError(beside if folder is None else _own_files_only(store))
            jobs.append(job)
        except OutputError as error:
            refused.append((source, error))
    collisions = _collisions(job.output for job in jobs if job.output is not None)
    refused += [(job.source, collisions[job.output]) for job in jobs if job.output in collisions]
    return [job for job in jobs if job.output not in collisions], refused


def why_not_there(path: Path) -> str | None:
    """Return why a result cannot have this place: a store's folder is its own. None if it can."""
    store = store_around(path)
    return None if store is None else _own_files_only(store)


def _own_files_only(store: Path) -> str:
    return f"{store} is a store, which holds its own files only: name another folder with -o"


def _place(
    source: Source, output: str | None, folder: Path | None, suffix: str, tag: str
) -> Path | None:
    name = source.relative
    if folder is not None:
        return below(folder, name.with_name(name.stem + suffix))
    if output == STREAM or source.path is None:
        return None
    if source.row is not None:  # a folder for each shard
        shard = source.path.relative_to(source.folder)
        return below(source.folder, shard.with_suffix(tag) / name.with_suffix(suffix))
    return below(source.folder, name.with_name(name.stem + tag + suffix))


def _collisions(outputs: Iterable[Path]) -> dict[Path | None, OutputError]:
    """Return why some places cannot be used: several results would go there."""
    uses = Counter(outputs)
    found: dict[Path | None, OutputError] = {
        output: OutputError(f"{output} would be the result of {number} inputs; name them apart")
        for output, number in uses.items()
        if number > 1
    }
    places, tells = {str(output): output for output in uses}, cache(tells_apart)
    for alike in lookalikes(places):
        if not tells(places[alike[0]].parent):
            reason = f"{' and '.join(alike)} are one file there, however spelled; name them apart"
            found |= {places[name]: OutputError(reason) for name in alike}
    return found


def is_taken(output: Path) -> bool:
    """Return whether a file exists at the place of a result.

    Raises OutputError if it is something else, which is neither read nor replaced.
    """
    if not os.path.exists(output):
        return False
    if not os.path.isfile(output):
        kind = "a folder" if os.path.isdir(output) else "no file, but a pipe or device"
        raise OutputError(f"{output} is {kind}: expected a file's name")
    return True


def is_pipe(path: Path) -> bool:
    """Return whether the path exists and is not a file: reading it may wait, and consumes it."""
    return os.path.exists(path) and not os.path.isfile(path)


def give_up_stdout() -> None:
    """After a failed write, drop what is still buffered, which would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_to_stdout(chunks: Iterable[bytes | memoryview]) -> None:
    """Write data to standard output, all of it. Raises OutputError if that fails."""
    try:
        if getattr(sys.stdout, "name", "") == os.devnull:  # put in its place by `main`
            raise OSError(errno.EBADF, "it is closed")
        sys.stdout.buffer.writelines(chunks)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the reader went away: `main` handles it
        raise
    except OSError as error:
        give_up_stdout()
        reason = error.strerror or error
        raise OutputError(f"cannot write to standard output: {reason}") from error


def write_result(output: Path | None, content: bytes) -> None:
    """Write a complete result to its place, or to standard output. Raises OutputError."""
    if output is None:
        write_to_stdout([content])
    else:
        write_atomically(output, content)


def put_result(output: Path | None, make: Callable[[], bytes], overwrite: bool) -> None:
    """Write the result of ``make``, which is called only if it may be written. Raises OutputError."""
    if output is not None:
        refuse_to_replace(output, overwrite)
    write_result(output, make())


def to_be_made(jobs: Iterable[Job], overwrite: bool) -> list[Job]:
    """Return the jobs that have no output yet, or whose output may be replaced."""

    def is_there(job: Job) -> bool:
        try:
            return job.output is not None and is_taken(job.output)
        except OutputError:  # its place cannot take a file: the run itself reports it
            return True

    return [job for job in jobs if overwrite or not is_there(job)]


def refuse_to_replace(output: Path, overwrite: bool) -> None:
    """Raise ExistingOutputError if a file exists and must not be replaced."""
    if is_taken(output) and not overwrite:
        raise ExistingOutputError(
            f"{output} exists already and is not the result of this input with these settings; "
            "kept it (replace it with --overwrite)"
        )


def refuse_to_replace_input(output: Path, data: bytes) -> None:
    """Raise OutputError if ``output`` is the input picture, with these bytes."""
    if holds(output, [data]):
        raise OutputError(f"{output} is the picture itself: it is never overwritten")


def holds(path: Path, pieces: Iterable[bytes | memoryview]) -> bool:
    """Return whether a file has exactly these bytes."""
    try:
        with path.open("rb") as file:
            for piece in pieces:
                content = memoryview(piece).cast("B")
                if file.read(len(content)) != content:
                    return False
            return not file.read(1)
    except OSError:
        return False
