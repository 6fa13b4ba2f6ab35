"""auravae encode --watch: encode what appears in folders, until somebody says stop."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator

import typer

from auravae_cli.cli.reports.outcomes import Reporter
from auravae_cli.cli.shared.signals import stopping
from auravae_cli.cli.terminal.lines import say
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit, Outcome, limited
from auravae_cli.operations.encode import EncodeOptions, encode_files
from auravae_cli.operations.inputs import STREAM, Source
from auravae_cli.operations.outputs import Job, plan
from auravae_cli.operations.suffixes import LATENTS, PICTURE_TAGS, PICTURES
from auravae_cli.operations.watch import Watcher, watch


def watch_folders(
    folders: list[str],
    output: str | None,
    interval: float,
    load: Callable[[], Codec],
    options: EncodeOptions,
    batch_size: int | None,
    limit: FailureLimit,
    reporter: Reporter,
) -> None:
    """Encode pictures as they appear, until SIGINT or SIGTERM."""
    for folder in folders:
        if not os.path.isdir(folder):  # noqa: PTH112 - never raises
            raise typer.BadParameter(
                f"{folder}: expected a folder that exists", param_hint="--watch"
            )
    if not folders:
        raise typer.BadParameter("name the folders to watch", param_hint="--watch")
    if output is not None and (output == STREAM or output.lower().endswith(tuple(LATENTS))):
        raise typer.BadParameter(f"{output}: expected a folder", param_hint="--output")
    with stopping() as stop:
        codec = load()

        def place(source: Source) -> Job:
            jobs, refused = plan([source], output, ".safetensors", "", LATENTS)
            for _, error in refused:
                raise error
            return jobs[0]

        def encode(jobs: list[Job]) -> Iterator[Outcome]:
            return encode_files(jobs, codec, options, batch_size)

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # whoever reads a pipe waits for each line
        if not reporter.quiet:
            names = ", ".join(folders)
            say(f"watching {names} with {codec.space.model} on {codec.device}; stop with Ctrl-C")
        watcher = Watcher(folders, PICTURES, PICTURE_TAGS)
        for outcome in limited(watch(watcher, place, encode, stop, interval), limit):
            reporter.report(outcome)
    if not reporter.quiet:
        say(f"stopped: {reporter.summary() or 'nothing came'}")
