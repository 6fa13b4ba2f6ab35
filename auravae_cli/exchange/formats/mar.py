"""MAR's latent caches: ``CLASS/NAME.npz`` with ``moments`` and ``moments_flip`` [2C, h, w].

Rules: LTH14/mar, engine_mar.py (cache_latents) and util/loader.py (CachedFolder) at e0cccf83: mean
and log-variance, one after the other; the folder is the class, and the classes are numbered in the order
of their folders. These latents have no noise of their own, so the log-variance is -30, the smallest that
its distribution keeps. The trainer multiplies by 0.2325.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    dtype_of,
    flipped,
    known,
    label_of,
    note_of,
    widened,
)
from auravae_cli.exchange.formats.zip_container import Npz, array_text, npz_pieces, text_array
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.typed import read_as, shown
from auravae_cli.latents.dtypes import Array
from auravae_cli.latents.latent_file import LatentFile

VALUES, FLIPPED = "moments", "moments_flip"
CLASS = "class_folder"  # in our metadata: the folder of the exported file
LEAST_LOGVAR = np.float32(-30)


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file, in the folder of its class."""
    name = f"{folder_of(latents, names[0])}{names[0]}.npz"
    arrays = {
        VALUES: _moments(widened(latents)),
        FLIPPED: _moments(widened(latents, flipped(latents))),
        NOTE: text_array(note_of(latents, None, **{CLASS: name.partition("/")[0]})),
    }
    yield Exported(name, lambda: npz_pieces(arrays))


def folder_of(latents: LatentFile, name: str) -> str:
    """Return the folder of the class; without a label, the folder in the latent's name."""
    label = label_of(latents.records[0])
    return "" if label is None and "/" in name else f"{label or 0:06d}/"


def read(file: Foreign) -> Iterator[Found]:
    """Yield the mean."""
    arrays = Npz(file.content)
    moments = arrays.get(VALUES)
    if moments is None or moments.ndim != 3 or moments.shape[0] % 2:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        raise LatentFileError(
            f"expected moments [2C, h, w], mean and log-variance, found {shown(shapes)}"
        )
    mean, logvar = np.split(moments, 2)
    ignored = [name for name in arrays if name not in (VALUES, NOTE)]
    ignored += ["log-variance"] if (logvar > LEAST_LOGVAR).any() else []
    note = array_text(arrays.get(NOTE))
    latent = known(mean, dtype_of(mean), note)
    label, name = _label(file), file.stem
    if latent is not None:
        label, name = _since_export(latent, read_json(note or "").get(CLASS), file, label)
    facts = {"annotations": {} if label is None else {"label": label}}
    yield Found(name, mean, dtype_of(mean), latent, facts, tuple(ignored))


def _since_export(
    latent: LatentFile, exported: str | None, file: Foreign, label: int | None
) -> tuple[int | None, str]:
    """Return the label if the file is in another class than ``exported``, and its name without the class.

    Only a number can be another class: a plain copy may be in any folder. A file of a release that did not
    record its class counts as being where it was.
    """
    folder, _, rest = file.stem.partition("/")
    was = exported or folder
    # Otherwise the class is a part of the name itself.
    is_in_front = rest and folder_of(latent, rest) == f"{was}/"
    now = _place(file)[1]
    is_moved = exported is not None and now != exported and _is_number(now)
    return label if is_moved else None, rest if is_in_front else file.stem


def _place(file: Foreign) -> tuple[str, str]:
    """Return the folder of the classes and the class; if the class itself was named, the folder above it."""
    folder, slash, _ = file.name.partition("/")
    if slash:
        return file.root, folder
    root = Path(file.root).absolute()
    return str(root.parent), root.name


def _label(file: Foreign) -> int | None:
    """Return the class that a file's folder says: its number, or its place among the folders."""
    root, folder = _place(file)
    if root != file.root and not _has_only_classes(root):
        return None
    if _is_number(folder):
        return read_as(int, int(folder))
    return _classes(root).get(folder)


def _is_number(folder: str) -> bool:
    return folder.isascii() and folder.isdecimal()


@lru_cache(maxsize=4)
def _classes(root: str) -> dict[str, int]:
    folders = sorted(path.name for path in Path(root).glob("*") if path.is_dir())
    return {folder: number for number, folder in enumerate(folders)}


@lru_cache(maxsize=4)
def _has_only_classes(root: str) -> bool:
    """Return whether a folder holds nothing but folders of latents, as any other folder could be above a file."""
    try:
        return all(next(path.glob("*.npz"), None) for path in Path(root).iterdir())
    except OSError:
        return False


def _moments(mean: Array) -> Array:
    return np.concatenate([mean, np.full_like(mean, LEAST_LOGVAR)])


FORMAT = Format(
    name="mar",
    rules="LTH14/mar, engine_mar.py and util/loader.py at e0cccf83",
    suffixes=frozenset((".npz",)),
    write=write,
    read=read,
    keeps=frozenset(("label",)),
    note="the .npz entry 'auravae'",
    flipped=FLIPPED,
    needs_flipped=True,
    folder=folder_of,
    counts_classes=True,
    fills_labels=True,
)
