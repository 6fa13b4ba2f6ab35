"""auravae import"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.shared.completion import complete_model
from auravae_cli.cli.terminal.lines import say, tell_json
from auravae_cli.defaults import STREAM

if TYPE_CHECKING:
    from collections import Counter

    from auravae_cli.cli.reports.outcomes import Reporter


def import_(
    files: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="FILE|FOLDER...", help="Files of another project, or folders."),
    ] = None,
    of: Annotated[
        Optional[opt.ExchangeFormat],
        typer.Option(
            "--from",
            metavar="FORMAT",
            help=f"The format of the files: {opt.FORMATS}.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option("--output", "-o", metavar="PATH", help="The folder or store to write to."),
    ] = None,
    assume_model: Annotated[
        Optional[str],
        typer.Option(
            metavar="MODEL",
            help="The model that made the latents, if the files do not say: a name or the path of a checkpoint.",
            autocompletion=complete_model,
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    store: Annotated[
        Optional[opt.StoredDtypeName],
        typer.Option(
            "--latent-dtype",
            metavar="TYPE",
            help="Store latents as float16, bfloat16 or float32. Default: the type they have.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    layout: Annotated[
        opt.Layout,
        typer.Option(
            help="Write a latent file per latent, or a store of shards. auto: shards if the files hold "
            "many latents each, or if the output is a store already.",
            rich_help_panel=opt.STORE,
        ),
    ] = opt.Layout.auto,
    shard_size: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="N",
            help="Put about N files of one latent into a shard. Default: 1000, or as the store was made.",
            rich_help_panel=opt.STORE,
        ),
    ] = None,
    retry_failures: opt.RetryFailures = False,
) -> None:
    """Import latents of other projects, as latent files or as a store.

    Examples:

        auravae import arrays --from npy -o imported --assume-model small
        auravae import cache --from kohya -o store-imported --layout shards

    Latents that auravae exported come back as they were; others need
    --assume-model. Shapes and values are checked. docs/exchange.md describes
    the formats.
    """
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.files.places import is_remote

    if of is None:
        raise typer.BadParameter("name a format", param_hint="--from")
    if output is None or output == STREAM:
        raise typer.BadParameter("name a folder for the latents", param_hint="--output")
    reporter = Reporter(as_json, quiet)
    how = ImportRequest(files or [], output, of.value, assume_model, store.value if store else None)
    if _into_store(layout, how):
        if overwrite:
            raise typer.BadParameter(
                "a store is resumed or refused, never overwritten: remove it, or name another",
                param_hint="--overwrite",
            )
        raise typer.Exit(_to_store(how, shard_size, retry_failures, reporter))
    if retry_failures and not is_remote(output):
        raise typer.BadParameter(
            "missing latent files are always retried: this is for --layout shards",
            param_hint="--retry-failures",
        )
    raise typer.Exit(_to_files(how, overwrite, reporter))


@dataclass(frozen=True)
class ImportRequest:
    """Which files to import, and where to."""

    files: list[str]
    output: str
    of: str
    assume_model: str | None
    latent_dtype: str | None


def _into_store(layout: opt.Layout, how: ImportRequest) -> bool:
    from auravae_cli.exchange.registry import FORMATS
    from auravae_cli.store.names import is_store

    if layout is opt.Layout.auto:
        return FORMATS[how.of].fills_stores or is_store(how.output)
    return layout is opt.Layout.shards


def _to_files(how: ImportRequest, overwrite: bool, reporter: Reporter) -> int:
    from auravae_cli.exchange.import_files import import_files

    with reporter:
        made = import_files(
            how.files,
            how.output,
            how.of,
            assume_model=how.assume_model,
            latent_dtype=how.latent_dtype,
            overwrite=overwrite,
            progress=reporter,
        )
    _tell(how.of, made.not_taken, reporter)
    return reporter.code


def _to_store(
    how: ImportRequest, shard_size: int | None, retry_failures: bool, reporter: Reporter
) -> int:
    from auravae_cli.cli.reports.store_progress import StoreReporter
    from auravae_cli.exchange.import_store import import_store

    with StoreReporter(reporter, how.output) as report:
        made = import_store(
            how.files,
            how.output,
            how.of,
            assume_model=how.assume_model,
            latent_dtype=how.latent_dtype,
            shard_size=shard_size,
            retry_failures=retry_failures,
            progress=report,
        )
    _tell(how.of, made.not_taken, reporter)
    return report.code


def _tell(name: str, ignored: Counter[str], reporter: Reporter) -> None:
    """Report what was in the files and is not imported, once per run."""
    from auravae_cli.exchange.registry import FORMATS

    form = FORMATS[name]
    if reporter.as_json:
        tell_json({"format": form.name, "rules": form.rules, "not_taken": dict(ignored)})
    elif ignored and not reporter.quiet:
        names = ", ".join(f"{name} ({number})" for name, number in ignored.most_common(8))
        more = f" and {len(ignored) - 8} more" if len(ignored) > 8 else ""
        say(f"note: not imported: {names}{more}; flipped copies can be made at any time")
