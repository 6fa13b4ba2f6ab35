"""All formats by name."""

from __future__ import annotations

from importlib.util import find_spec

from auravae_cli.errors import UsageError
from auravae_cli.exchange.formats import (
    aitoolkit,
    arrays,
    caches,
    comfyui,
    edm2,
    kohya,
    lightningdit,
    litdata,
    mar,
    mds,
    musubi,
    parquet,
    repa_e,
    sana,
    simpletuner,
    tensors,
    webdataset,
)
from auravae_cli.exchange.formats.base import Format

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        *(comfyui.FORMAT, kohya.FORMAT, musubi.FORMAT, aitoolkit.FORMAT),
        *(simpletuner.FORMAT, lightningdit.FORMAT),
        *(edm2.FORMAT, mar.FORMAT, webdataset.FORMAT, parquet.FORMAT),
        *(mds.FORMAT, litdata.FORMAT, sana.FORMAT, repa_e.FORMAT, arrays.NPY, arrays.NPZ),
        *(tensors.SAFETENSORS, tensors.PICKLE),
        *(caches.ONETRAINER, caches.DIFFUSION_PIPE, caches.NEMO),
    )
}


def format_of(name: str) -> Format:
    """The format of this name. Raises UsageError, also if a library that it needs is missing."""
    if name not in FORMATS:
        raise UsageError(f"{name!r}: expected one of {', '.join(FORMATS)}")
    form = FORMATS[name]
    require_library(name, form.needs)
    return form


def require_library(name: str, library: str) -> None:
    """Raise UsageError if a format needs a library, by its name, and that is not installed."""
    if library and find_spec(library) is None:
        raise UsageError(f"{name} needs {library}: pip install {library}")
