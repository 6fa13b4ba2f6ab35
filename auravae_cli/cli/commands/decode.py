"""auravae decode"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.shared.completion import complete_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from auravae_cli.latents.latent_file import LatentFile
    from auravae_cli.model.codec import Codec
    from auravae_cli.operations.inputs import Source


class Format(str, Enum):
    """Picture formats that can be written."""

    png = "png"
    jpg = "jpg"
    webp = "webp"
    tiff = "tiff"


def decode(
    latents: opt.Latents = None,
    output: opt.Output = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model's name or the path of a checkpoint. Default: the model that made the latents.",
            autocompletion=complete_model,
        ),
    ] = None,
    file_format: Annotated[
        Format,
        typer.Option("--format", help="The picture format, if no file is named with --output."),
    ] = Format.png,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRunOption = False,
    listed: opt.From = None,
    any_model: opt.AnyModel = False,
    symmetrize: opt.Symmetrize = opt.Symmetry.auto,
    noise: opt.Noise = 0.0,
    seed: opt.Seed = 0,
    bits: Annotated[
        int,
        typer.Option(
            metavar="8|16",
            help="Bits per channel; 16 is for PNG.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = 8,
    quality: opt.Quality = 95,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
    batch_size: opt.BatchSize = None,
) -> None:
    """Decode latents to pictures: photo.safetensors => photo.decoded.png.

    Examples:

        auravae decode photo.safetensors
        auravae decode latents -o pictures --format jpg

    Each picture has the exact size of the one that was encoded. A source
    picture is never overwritten. A shard or a store gives one picture per row,
    named after its source; if two shards of a store have pictures of the same
    name, each shard gets a folder.
    """
    from auravae_cli.cli.reports.jobs import plan_jobs
    from auravae_cli.cli.reports.outcomes import Reporter
    from auravae_cli.cli.shared.sizes import read_size
    from auravae_cli.images.write import WRITABLE
    from auravae_cli.model.codec import load_codec
    from auravae_cli.operations.decode import CodecByModel, DecodeOptions, decode_files
    from auravae_cli.operations.suffixes import DECODED, LATENTS

    if bits not in (8, 16):
        raise typer.BadParameter(f"{bits}: expected 8 or 16", param_hint="--bits")
    reporter = Reporter(as_json, quiet)
    suffix = f".{file_format.value}"
    names, expand = _open_stores(opt.read_names(latents, listed), output)
    jobs = plan_jobs(
        names,
        output,
        input_suffixes=LATENTS,
        suffix=suffix,
        tag=DECODED,
        output_suffixes=WRITABLE,
        result_tags=frozenset(),
        reporter=reporter,
        expand=expand,
    )
    budget = read_size(memory, "--memory")
    if dry_run:
        from auravae_cli.cli.reports.dry_run import DryRun
        from auravae_cli.forecast.dry_run import forecast_latents
        from auravae_cli.operations.timed_batches import DECODE_PARTS

        dry = DryRun(
            "decode",
            DECODE_PARTS,
            reporter,
            device,
            dtype.value,
            budget,
            batch_size,
            symmetrize.value,
        )
        rows = forecast_latents(
            jobs, dry.forecaster, lambda own: dry.setting(model or own), keeps=not overwrite
        )
        raise typer.Exit(dry.report(rows, len(jobs)))
    load = partial(
        load_codec,
        parts=("decoder",),
        device=device,
        dtype=dtype.value,
        memory=budget,
        symmetrize=symmetrize.value,
    )
    if model is None:
        codec_of: Callable[[LatentFile], Codec] = CodecByModel(load)
    else:
        codec = load(model)
        codec_of = lambda latent: codec  # noqa: E731
    options = DecodeOptions(suffix, bits, quality, noise, seed, any_model, overwrite)
    raise typer.Exit(reporter.run(decode_files(jobs, codec_of, options, batch_size), len(jobs)))


def _open_stores(
    names: list[str], output: str | None
) -> tuple[list[str], Callable[[Source], Sequence[Source]]]:
    """What to look for, and what that stands for: a store goes by the name of its settings file.

    Raises StoreError where there is no way to reach one.
    """
    from pathlib import Path

    from auravae_cli.files.storage import is_remote, open_storage
    from auravae_cli.operations.latent_rows import expand_shard, expand_store
    from auravae_cli.store.format import SETTINGS_FILE, is_store

    if output is None and any(map(is_remote, names)):
        raise typer.BadParameter(
            "pictures cannot go beside a remote store: name a folder", param_hint="--output"
        )
    files = {name: str(Path(name, SETTINGS_FILE)) for name in names if is_store(name)}
    stores = {Path(file): open_storage(name) for name, file in files.items()}

    def expand(source: Source) -> Sequence[Source]:
        storage = source.path and stores.get(source.path)
        return expand_store(storage) if storage else expand_shard(source)

    return [files.get(name, name) for name in names], expand
