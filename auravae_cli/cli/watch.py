"""auravae encode --watch: encode what appears in folders, until somebody says stop."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from auravae_cli.cli.report import Reporter, say
from auravae_cli.codec import Codec
from auravae_cli.pipeline.batches import FailureLimit, Outcome, limited
from auravae_cli.pipeline.encode import EncodeOptions, encode_files
from auravae_cli.pipeline.inputs import STREAM, Source
from auravae_cli.pipeline.outputs import Job, plan
from auravae_cli.pipeline.watch import Watcher, watch
from auravae_cli.suffixes import LATENTS, PICTURE_TAGS, PICTURES


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
    with _stopped_by_signals() as stop:
        codec = load()

        def place(source: Source) -> Job:
            jobs, _ = plan([source], output, ".safetensors", "", LATENTS)
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


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets. A second one ends the program as usual."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        give_back()

    for number in signals:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        give_back()
