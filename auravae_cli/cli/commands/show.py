"""auravae show"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.protocol import Protocol
from auravae_cli.defaults import MAX_PIXELS, STREAM

if TYPE_CHECKING:
    from auravae_cli.cli.terminal.detect import Screen
    from auravae_cli.images.read import Pixels
    from auravae_cli.operations.views import Cells


def show(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Pictures, latents, shards, stores, folders, patterns, or -. Several make a grid.",
        ),
    ],
    channels: Annotated[
        bool,
        typer.Option("--channels", help="Draw each channel of a latent as a map, with its parity."),
    ] = False,
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a picture file instead of drawing; - writes PNG to standard output.",
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    key: Annotated[
        Optional[str],
        typer.Option(
            metavar="KEY", help="Take this row of a shard or store.", rich_help_panel=opt.INPUT
        ),
    ] = None,
    index: Annotated[
        Optional[int],
        typer.Option(
            metavar="N",
            help="Take row N of a shard or store, counted from 0.",
            rich_help_panel=opt.INPUT,
        ),
    ] = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    background: opt.Background = "white",
    protocol: Annotated[
        Protocol,
        typer.Option(
            metavar="NAME",
            help="Draw with auto, kitty, sixel, blocks, blocks256 or ascii; auto is the best that the terminal "
            "is known to support.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = Protocol.auto,
    width: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="Columns to draw in. Default: those of the window.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Draw pictures and latents in the terminal, within its window.

    Examples:

        auravae show photo.jpg photo.safetensors
        auravae show photo.safetensors --channels

    Several files make a grid; of more than 64, the first are shown.
    A latent is previewed without its model: by a fitted linear map for latents
    of the embedded models, by principal components for others. If the output
    is not a terminal, the drawing is plain text.
    """
    from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED
    from auravae_cli.cli.terminal.detect import find_screen
    from auravae_cli.cli.terminal.lines import print_drawing, say, tell
    from auravae_cli.cli.terminal.live import Live
    from auravae_cli.errors import AuraVaeError
    from auravae_cli.operations.views import view_files

    screen = find_screen(protocol, width) if output is None else None
    with Live("reading", hidden=quiet):
        views = view_files(
            files,
            channels=channels,
            in_grey=screen is not None and screen.protocol is Protocol.ascii,
            key=key,
            index=index,
            background=background,
            max_pixels=max_pixels,
        )
    cells: Cells = []
    captions: list[str] = []
    for name, view in views.of:
        if isinstance(view, AuraVaeError):
            say(f"failed: {name}: {view}")
            continue
        for notice in () if quiet else view.notices:
            say(f"note: {name}: {notice}")
        cells += view.cells
        captions.append(view.caption)
    if cells and screen is not None:
        print_drawing(draw(cells, screen))
        if not quiet:
            say(captions[0] if len(views.of) == 1 else f"{len(captions)} files")
    elif cells and output is not None:
        _write(cells, output, overwrite)
        if output != STREAM and not quiet:
            shown = views.of[0][0] if len(views.of) == 1 else f"{len(captions)} files"
            tell(f"{shown} -> {output}")
    if views.left_out and not quiet:
        say(f"note: {views.left_out} more files are not shown: name them, or fewer")
    raise typer.Exit(EXIT_SOME_FAILED if len(captions) < len(views.of) else 0)


def draw(cells: Cells, screen: Screen) -> str:
    """Return what to write to the terminal."""
    from auravae_cli.cli.terminal.drawing import characters, grid, kitty, resized, sixel
    from auravae_cli.images.contact_sheet import contact_sheet

    images = screen.protocol in (Protocol.kitty, Protocol.sixel)
    if len(cells) > 1 and not images:
        return "\n".join(grid(cells, screen.columns, screen.lines, screen.protocol)) + "\n"
    pixels = cells[0][1] if len(cells) == 1 else contact_sheet(cells, columns=_columns(len(cells)))
    columns, lines = _extent(pixels, screen, images)
    if screen.protocol is Protocol.kitty:
        return kitty(pixels, columns, lines) + "\n"
    if screen.protocol is Protocol.sixel:
        height, width = lines * screen.cell[0], columns * screen.cell[1]
        return sixel(resized(pixels, height, width)) + "\n"
    return "\n".join(characters(pixels, columns, screen.protocol)) + "\n"


def _columns(number: int) -> int:
    """Return the columns of a sheet: four, or more where it would be higher than wide."""
    return max(4, math.isqrt(number - 1) + 1)


def _extent(pixels: Pixels, screen: Screen, images: bool) -> tuple[int, int]:
    """Return the columns and lines of a picture: within the screen, and not enlarged by default."""
    height, width = pixels.shape[:2]
    cell_height, cell_width = screen.cell if images else (2, 1)
    aspect = height / width * cell_width / cell_height  # lines per column
    columns = screen.columns
    if screen.lines is not None:
        natural = max(1, width // cell_width)
        columns = max(1, min(columns, natural, int(max(1, screen.lines) / aspect)))
    return columns, max(1, round(columns * aspect))


def _write(cells: Cells, output: str, overwrite: bool) -> None:
    """Write the picture, or the contact sheet of several. Raises OutputError."""
    from auravae_cli.images.contact_sheet import contact_sheet
    from auravae_cli.images.write import picture_bytes
    from auravae_cli.operations.outputs import put_result

    if output == STREAM:
        if sys.stdout.isatty():
            raise typer.BadParameter(
                "binary data on a terminal: pipe it, or name a file", param_hint="--output"
            )
        target, suffix = None, ".png"
    else:
        target, suffix = Path(output), Path(output).suffix
    pixels = cells[0][1] if len(cells) == 1 else contact_sheet(cells, columns=_columns(len(cells)))
    put_result(target, lambda: picture_bytes(pixels, suffix), overwrite)
