"""The `auravae` program: its commands, and the one place that turns errors into exit codes.

Exit codes: 0 all done, 1 some inputs failed, 2 wrong usage, 3 the model or its weights are
unusable, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from auravae_cli.cli.command_table import HELP_OPTIONS, CommandTable
from auravae_cli.cli.shared.numbers import explained
from auravae_cli.cli.shared.renamed import take_new_variables, with_new_names
from auravae_cli.cli.shared.streams import replace_closed
from auravae_cli.cli.terminal.lines import inert, say, tell
from auravae_cli.errors import AuraVaeError, ConfigError, ModelError
from auravae_cli.files.limits import check_environment
from auravae_cli.machine.background import is_work_abandoned
from auravae_cli.version import __version__


class _Interrupted(BaseException):
    """Ctrl-C, as an error of our own: typer would end the program without a word."""


class _Inert(TyperGroup):
    """The group of commands; usage errors are shown as inert text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = CommandTable()  # type: ignore[assignment]  # nothing is added to it

    def make_context(self, info_name: Any, args: Any, *others: Any, **options: Any) -> Any:
        with _inert_errors():
            return super().make_context(info_name, with_new_names(args), *others, **options)

    def invoke(self, ctx: Any) -> Any:
        with _inert_errors():
            return super().invoke(ctx)


@contextmanager
def _inert_errors() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise _Interrupted from None
    except Exception as error:
        if hasattr(error, "format_message"):  # the base class of usage errors is not public
            text = explained(error.message, getattr(error, "param", None))  # type: ignore[attr-defined]
            error.message = inert(text)  # type: ignore[attr-defined]
        raise


_HELP = """An image autoencoder whose latents can be flipped without the model.

Examples:

    auravae encode photo.jpg
    auravae decode photo.safetensors

auravae COMMAND --help describes a command and its options.
"""
app = typer.Typer(
    cls=_Inert,
    name="auravae",
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
)


def _print_version(asked: bool) -> None:
    if asked:
        tell(f"auravae {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    take_new_variables()
    try:
        check_environment()
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


_NEEDS_TORCH = (
    "this needs PyTorch, which is not installed: pip install torch; without it, models in safetensors run on "
    "CPUs that the kernels support (auravae doctor), and --model linear everywhere"
)
_STAYS = "finished work is kept; the same command continues from there"


class _Terminated(BaseException):
    """SIGTERM, like KeyboardInterrupt for Ctrl-C: unfinished files are removed on the way out."""


def _say(error: AuraVaeError) -> None:
    """Print an error as one line; the faults of a config as one line each."""
    first, *others = error.lines if isinstance(error, ConfigError) else (str(error),)
    say(f"error: {first}", *others)


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _leave(code: int) -> None:
    """End the program, without waiting for a thread that computes what nobody awaits any more."""
    if is_work_abandoned():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main() -> None:
    """Run the program."""
    replace_closed()
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(50_000)  # start-up makes many objects and no garbage: saves 15 ms
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a file's name may not be valid text in any encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="auravae")  # also under `python -m`, for which completion has no name
    except ModelError as error:
        _say(error)
        sys.exit(3)
    except AuraVaeError as error:
        _say(error)
        sys.exit(1)
    except MemoryError:
        say("error: not enough memory; finished work is kept: run it again")
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        say(f"error: {_NEEDS_TORCH}")
        sys.exit(3)
    except _Terminated:
        say(f"terminated: {_STAYS}")
        _leave(143)
    except (KeyboardInterrupt, _Interrupted):
        say(f"interrupted: {_STAYS}")
        _leave(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # The reader of our output went away, which is allowed, or its disk is full.
        if error.errno == errno.ENOSPC:
            say(f"error: cannot write to standard output: {error.strerror}")
        from auravae_cli.operations.outputs import give_up_stdout

        give_up_stdout()
        sys.exit(1)
