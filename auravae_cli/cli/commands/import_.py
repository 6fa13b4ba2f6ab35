"""auravae import"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.shared.completion import complete_model
from auravae_cli.cli.terminal.lines import say, tell_json

if TYPE_CHECKING:
    from collections import Counter

    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.exchange.adopt import LatentImporter
    from auravae_cli.exchange.formats.base import Format
    from auravae_cli.operations.inputs import Source


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
            help="The model that made the latents, if they do not tell: a name or the path of a checkpoint.",
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
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Put about N files of one latent into a shard.",
            rich_help_panel=opt.STORE,
        ),
    ] = 1000,
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
    from auravae_cli.exchange.adopt import LatentImporter
    from auravae_cli.exchange.registry import FORMATS
    from auravae_cli.files.storage import is_remote
    from auravae_cli.latents.dtypes import STORED_DTYPES
    from auravae_cli.model.latent_space import read_space
    from auravae_cli.operations.inputs import STREAM, collect

    if of is None:
        raise typer.BadParameter("name a format", param_hint="--from")
    if output is None or output == STREAM:
        raise typer.BadParameter("name a folder for the latents", param_hint="--output")
    form = FORMATS[of.value]
    sources = [
        source
        for source in collect(files or [], form.suffixes)
        if str(source.path) in (files or []) or not form.ignores(str(source.path))
    ]
    if any(source.path is None for source in sources):
        raise typer.BadParameter("expected files: standard input has no name")
    if not sources:
        found = "the folders named hold none" if files else "none was named"
        kinds = " ".join(sorted(form.suffixes))
        raise typer.BadParameter(f"no files: {found}; expected {kinds}, or folders of them")
    assumed = read_space(assume_model) if assume_model else None
    adopt = LatentImporter(form.name, assumed, STORED_DTYPES[store.value] if store else None)
    reporter = Reporter(as_json, quiet)
    if _into_store(layout, form, output):
        if overwrite:
            raise typer.BadParameter(
                "a store is gone on with or refused, never overwritten: remove it, or name another",
                param_hint="--overwrite",
            )
        code, ignored = _to_store(
            sources, form, adopt, output, shard_size, retry_failures, reporter
        )
    elif is_remote(output):
        raise typer.BadParameter(
            f"{output}: only stores are written there: --layout shards", param_hint="--output"
        )
    elif retry_failures:
        raise typer.BadParameter(
            "latent files are made where they are missing: this is for --layout shards",
            param_hint="--retry-failures",
        )
    else:
        code, ignored = _to_files(sources, form, adopt, output, overwrite, reporter)
    _tell(form, ignored, reporter)
    raise typer.Exit(code)


def _into_store(layout: opt.Layout, form: Format, output: str) -> bool:
    from auravae_cli.store.format import is_store

    if layout is opt.Layout.auto:
        return form.stacked or is_store(output)
    return layout is opt.Layout.shards


def _to_files(
    sources: list[Source],
    form: Format,
    adopt: LatentImporter,
    output: str,
    overwrite: bool,
    reporter: Reporter,
) -> tuple[int, Counter[str]]:
    from auravae_cli.exchange.import_files import Importer

    importer = Importer(form, adopt, Path(output), overwrite)
    return reporter.run(importer.run(sources), len(sources)), importer.ignored


def _to_store(
    sources: list[Source],
    form: Format,
    adopt: LatentImporter,
    output: str,
    shard_size: int,
    retry_failures: bool,
    reporter: Reporter,
) -> tuple[int, Counter[str]]:
    from auravae_cli.cli.reports.store_progress import StoreReporter
    from auravae_cli.errors import InputImageError
    from auravae_cli.exchange.import_plan import (
        count_file_shards,
        deal,
        first_latent,
        settings_for,
    )
    from auravae_cli.exchange.import_store import StoreImporter
    from auravae_cli.files.storage import open_storage
    from auravae_cli.operations.encode_store import find_work
    from auravae_cli.store.commit import prepare_store
    from auravae_cli.store.format import read_settings

    storage = open_storage(output)
    found = read_settings(storage)
    dealt = found.num_file_shards if found else count_file_shards(sources, form, shard_size)
    try:
        shards = deal(sources, form, dealt)
    except InputImageError as error:
        raise typer.BadParameter(str(error)) from error
    settings = settings_for(first_latent(sources, form, adopt), form, dealt)
    settings = prepare_store(storage, settings)
    importer = StoreImporter(form, adopt, storage, settings)
    work = find_work(shards, storage, settings, retry_failures=retry_failures)
    code = StoreReporter(reporter, storage.root, sum(shard.size for shard in shards)).run(
        importer.run(work)
    )
    return code, importer.ignored


def _tell(form: Format, ignored: Counter[str], reporter: Reporter) -> None:
    """What was in the files and is not taken, once a run."""

    if reporter.as_json:
        tell_json({"format": form.name, "rules": form.rules, "not_taken": dict(ignored)})
    elif ignored and not reporter.quiet:
        names = ", ".join(f"{name} ({number})" for name, number in ignored.most_common(8))
        more = f" and {len(ignored) - 8} more" if len(ignored) > 8 else ""
        say(f"note: not taken: {names}{more}; a flipped copy is made when it is wanted")
