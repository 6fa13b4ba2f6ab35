"""auravae encode --watch: encode what appears in folders, until it is stopped."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from auravae_cli.cli.reports.outcomes import Reporter
from auravae_cli.cli.shared.signals import stopping
from auravae_cli.cli.terminal.lines import say
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import Outcome
from auravae_cli.operations.watch import watch_folders

if TYPE_CHECKING:
    from auravae_cli.cli.commands.encode import EncodeRequest


def follow_folders(
    folders: list[str],
    output: str | None,
    interval: float,
    asked: EncodeRequest,
    reporter: Reporter,
) -> None:
    """Encode pictures as they appear, until SIGINT or SIGTERM."""

    def started(codec: Codec) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # the reader of a pipe waits for each line
        if not reporter.quiet:
            names = ", ".join(folders)
            say(f"watching {names} with {codec.space.model} on {codec.device}; stop with Ctrl-C")

    def report(outcome: Outcome | None, done: int, total: int) -> None:
        if outcome is not None:
            reporter.report(outcome)

    with stopping() as stop:
        watch_folders(
            folders,
            output,
            stop=stop,
            interval=interval,
            model=asked.model,
            preparation=asked.preparation,
            latent_dtype=asked.latent_dtype,
            max_pixels=asked.max_pixels,
            batch_size=asked.batch_size,
            overwrite=asked.overwrite,
            limit=asked.limit,
            started=started,
            progress=report,
            **asked.loading,
        )
    if not reporter.quiet:
        say(f"stopped: {reporter.summary() or 'nothing came'}")
