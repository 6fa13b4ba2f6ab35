"""auravae flip"""

from __future__ import annotations

from typing import Annotated

import typer

from auravae_cli.cli import options as opt


def flip(
    latents: opt.Latents = None,
    horizontal: Annotated[
        bool, typer.Option("--horizontal", "-H", help="Mirror left-right.")
    ] = False,
    vertical: Annotated[bool, typer.Option("--vertical", "-V", help="Mirror top-bottom.")] = False,
    output: opt.Output = None,
    listed: opt.From = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Flip stored latents, exactly and without the model: photo.safetensors => photo.h.safetensors.

    Reverses an axis and negates the channels that are odd under it. Works on latent files and on
    shards; the same flip twice gives back the same bytes.
    """
    from auravae_cli.cli.jobs import plan_jobs
    from auravae_cli.cli.report import Reporter
    from auravae_cli.group import GroupElement
    from auravae_cli.pipeline.flip import flip_files
    from auravae_cli.suffixes import FLIP_TAGS, LATENTS

    g = GroupElement(horizontal, vertical)
    if not g.axes:
        raise typer.BadParameter("say how: --horizontal, --vertical, or both")
    reporter = Reporter(as_json, quiet)
    jobs = plan_jobs(
        latents,
        listed,
        output,
        input_suffixes=LATENTS,
        suffix=".safetensors",
        tag=f".{g}",
        output_suffixes=LATENTS,
        result_tags=frozenset() if output else FLIP_TAGS,
        reporter=reporter,
    )
    raise typer.Exit(reporter.run(flip_files(jobs, g, overwrite=overwrite), len(jobs)))
