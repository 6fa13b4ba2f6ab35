"""The names of other projects' autoencoders, which an evaluation measures beside our own.

``diffusers:PLACE`` is a folder or a repository of the hub, ``taesd:FILE`` a pair of files as TAESD
publishes them, ``module:attribute`` a Python object. Needs no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DIFFUSERS, TAESD, PYTHON = "diffusers", "taesd", "python"
_OBJECT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class ForeignName:
    """The library that reads a model, and where that is: a folder, a file, or ``module:attribute``."""

    library: str
    place: str


def parse_foreign(model: str) -> ForeignName | None:
    """Return the name of another project's model; None for a name or a path of ours.

    >>> parse_foreign("diffusers:stabilityai/sd-vae-ft-mse")
    ForeignName(library='diffusers', place='stabilityai/sd-vae-ft-mse')
    >>> parse_foreign("mine.models:vae")
    ForeignName(library='python', place='mine.models:vae')
    >>> parse_foreign("small")
    """
    library, colon, place = model.partition(":")
    if colon and place and library in (DIFFUSERS, TAESD):
        return ForeignName(library, place)
    if _OBJECT.fullmatch(model) and not Path(model).exists():
        return ForeignName(PYTHON, model)
    return None
