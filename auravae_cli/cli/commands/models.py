"""auravae models"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.shared.completion import complete_hub_model
from auravae_cli.cli.terminal.lines import say, tell, tell_json
from auravae_cli.cli.terminal.live import Live, Pace

_HELP = """List the known models, and download official weights.

Examples:

    auravae models list
    auravae models pull aura

The small models are part of the package and need no download.
"""
_WIDTH = 79  # of lines for people
app = typer.Typer(help=_HELP, no_args_is_help=True)


@app.command("list")
def list_models(
    as_json: Annotated[bool, opt.json_per("model")] = False,
) -> None:
    """List the known models, and where their weights are on this machine.

    Examples:

        auravae models list
        auravae models list --json

    PSNR, SSIM and LPIPS were measured on the pictures named below the list.
    """
    from auravae_cli.cli.reports.outcomes import print_table
    from auravae_cli.defaults import DEFAULT_MODEL, MODEL_VARIABLE
    from auravae_cli.model.spec.registry import known_models, local_weights

    default = os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL
    rows: list[dict[str, Any]] = []
    for config in known_models().values():
        path = local_weights(config)
        rows.append(
            {
                "name": config.name,
                "default": config.name == default,
                "summary": config.summary,
                "weights": None if path is None else str(path),
                "quality": asdict(config.quality) if config.quality else None,
            }
        )
    if as_json:
        for row in rows:
            tell_json(row)
        return
    print_table(
        "",
        ["model", "", "PSNR dB", "SSIM", "LPIPS", "weights"],
        [
            [
                row["name"],
                "default" * row["default"],
                *_numbers(row["quality"]),
                _place(row["weights"]),
            ]
            for row in rows
        ],
    )
    told = [f"{row['name']}: {row['summary']}" for row in rows]
    measured = {row["quality"]["data"] for row in rows if row["quality"]}
    told += [f"Measured on {data}." for data in sorted(measured)]
    tell("", *(line for text in told for line in wrap(text, _WIDTH, subsequent_indent="  ")))


def _numbers(quality: dict[str, Any] | None) -> tuple[str, str, str]:
    if quality is None:
        return "-", "-", "-"
    return f"{quality['psnr']:.2f}", f"{quality['ssim']:.3f}", f"{quality['lpips']:.3f}"


def _place(weights: str | None) -> str:
    """Return where weights are, for people."""
    from auravae_cli.model.spec.registry import WEIGHTS_PATH

    if weights is None:
        return "not on this machine"
    return "in the package" if Path(weights).parent == WEIGHTS_PATH else weights


@app.command()
def pull(
    name: Annotated[
        str,
        typer.Argument(help="The model to download: aura.", autocompletion=complete_hub_model),
    ],
    as_json: Annotated[bool, opt.json_per("model")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Download a model's official weights to the hub's cache, check them, and print their sha256.

    Examples:

        auravae models pull aura
        auravae models pull aura --json

    Needs the package huggingface_hub.
    """
    from auravae_cli.model.codec import load_codec
    from auravae_cli.model.spec.registry import find_model, find_weights, model_files, pull as fetch

    config = find_model(name)
    if config is None:
        raise typer.BadParameter(f"no model {name!r}: expected one of {', '.join(model_files())}")
    with Live(f"fetching {config.hub_file} of {config.hub_repo}", hidden=quiet) as live:

        def hear(_: None, done: int, total: int) -> None:
            live.pace.done, live.pace.total = done, total
            live.more = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else ""

        fetch(config, hear)
        live.more, live.pace = "", Pace()
        live.begin("checking the weights")
        path, _ = find_weights(name)  # the file that has this name from now on
        codec = load_codec(name, device="cpu", dtype="auto")
    facts = {
        "model": name,
        "path": str(path),
        "sha256": codec.space.weights_sha256,
        "checked": "sha256" if config.sha256 else "names and shapes",
        "representation": str(codec.space.irreps),
        "downsampling_factor": codec.space.downsampling_factor,
    }
    if as_json:
        tell_json(facts)
        return
    tell(*(f"{key:<20} {value}" for key, value in facts.items()))
    if not config.sha256:
        say(
            "note: this release knows no sha256 of the official file: names and shapes are right, but "
            "it cannot tell whose values they are; compare the sha256 with the one shown by the hub"
        )
