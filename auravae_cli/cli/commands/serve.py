"""auravae serve"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from auravae_cli.cli.shared import options as opt
from auravae_cli.defaults import DEFAULT_MODEL

if TYPE_CHECKING:
    from auravae_cli.model.codec import Codec


def serve(
    model: opt.Model = DEFAULT_MODEL,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all networks.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: a free one.")
    ] = 8000,
    queue: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Answer 429 to more than N requests at once.",
            rich_help_panel=opt.INPUT,
        ),
    ] = 128,
    max_pixels: opt.MaxPixels = 1 << 24,
    max_body: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Refuse larger bodies.", rich_help_panel=opt.INPUT),
    ] = "64M",
    timeout: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="Give up requests that take longer.",
            rich_help_panel=opt.INPUT,
        ),
    ] = 300,
    symmetrize: opt.Symmetrize = opt.Symmetry.auto,
    quiet: opt.Quiet = False,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Use N GPUs, starting with --device; on a CPU, run N pictures at once.",
            rich_help_panel=opt.RUNNING,
        ),
    ] = 1,
    batch_size: opt.BatchSize = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
) -> None:
    """Serve the model over HTTP: diffusers' remote VAE, a REST interface, a page for browsers.

    Examples:

        auravae serve
        auravae serve --model linear --port 8080

    AURAVAE_TOKEN in the environment restricts access to clients that send it.
    SIGTERM and Ctrl-C finish the requests in progress first.
    The extra `serve` of the package has to be installed.
    """
    import os

    from auravae_cli.cli.shared.numbers import parse_bytes
    from auravae_cli.cli.terminal.lines import say
    from auravae_cli.errors import ModelError
    from auravae_cli.model.codec import load_codec

    try:
        from auravae_cli.serve.access import TOKEN_VARIABLE
        from auravae_cli.serve.limits import Limits
        from auravae_cli.serve.server import serve_model
    except ModuleNotFoundError as error:
        raise ModelError(f"serve needs {error.name}: pip install starlette uvicorn") from error

    load = partial(
        load_codec,
        model,
        dtype=dtype.value,
        memory=parse_bytes(memory, "--memory"),
        symmetrize=symmetrize.value,
    )
    limits = Limits(
        body=parse_bytes(max_body, "--max-body") or 0,
        pixels=max_pixels,
        seconds=timeout,
        requests=queue,
    )

    def started(codec: Codec, address: str) -> None:
        if not quiet:
            say(f"{codec.space.model} on {codec.device} at {address}; stop with Ctrl-C")

    serve_model(
        load,
        started,
        device=device,
        workers=workers,
        host=host,
        port=port,
        limits=limits,
        token=os.environ.get(TOKEN_VARIABLE) or None,
        batch_size=batch_size,
    )
    if not quiet:
        say("stopped")
