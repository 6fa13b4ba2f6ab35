"""What all latents of a store have in common: ``store.json``."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from auravae_cli.errors import StoreError
from auravae_cli.files.canonical_json import canonical, read_json
from auravae_cli.files.kinds import kind_of_file
from auravae_cli.files.places import is_remote
from auravae_cli.files.storage import Storage
from auravae_cli.files.typed import Faults, Positive, shown, table
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.latents.latent_file import LatentSpace, space_from_json, space_to_json
from auravae_cli.store.names import SETTINGS_FILE

FORMAT_VERSION = 1


@dataclass(frozen=True)
class StoreSettings:
    """What all latents of a store have in common.

    ``preparation`` is `Preparation.to_json`; ``compute_dtype`` is the network's number format;
    ``num_file_shards`` is the number of shards that loose files, but not tars, are distributed over;
    ``kernels`` records whose kernels computed (`Codec.kernels`), and ``symmetry`` how flips were made exact.
    Last bits depend on both; None if not known, as in older stores. ``picture`` names the picture that
    counts of samples with several (`make_samples`); None for the default.
    """

    space: LatentSpace
    stored_dtype: StoredDtype
    compute_dtype: str
    preparation: dict[str, Any]
    num_file_shards: int = 1
    kernels: str | None = None
    symmetry: str | None = None
    picture: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``store.json``."""
        return {
            "format": "auravae-store",
            "format_version": FORMAT_VERSION,
            **space_to_json(self.space),
            "stored_dtype": self.stored_dtype.name,
            "compute_dtype": self.compute_dtype,
            "preparation": self.preparation,
            "num_file_shards": self.num_file_shards,
            **({} if self.kernels is None else {"kernels": self.kernels}),
            **({} if self.symmetry is None else {"symmetry": self.symmetry}),
            **({} if self.picture is None else {"picture": self.picture}),
        }

    def as_known_to(self, found: StoreSettings) -> StoreSettings:
        """These settings, to go on with a store of ``found``: without what that does not know of itself.

        A model of the same weights has the name that the store knows it by.
        """
        return replace(
            self,
            space=found.space if self.space.is_same(found.space) else self.space,
            kernels=None if found.kernels is None else self.kernels,
            symmetry=None if found.symmetry is None else self.symmetry,
        )

    @property
    def sha256(self) -> str:
        """The sha256 of the canonical JSON, which manifests refer to."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()


def read_settings(storage: Storage) -> StoreSettings | None:
    """Return the settings of a store; None if there is no store. Raises StoreError."""
    if is_file(storage):
        return None
    try:
        content = read_json(storage.read(SETTINGS_FILE))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{storage.root}/{SETTINGS_FILE}: damaged: {error}") from error
    try:
        require_format(content, "auravae-store", FORMAT_VERSION)
        found = _read_settings(content)
        return StoreSettings(space_from_json(content), **found)
    except ValueError as error:
        raise StoreError(
            f"{storage.root}/{SETTINGS_FILE}: no store that this auravae reads: {error}"
        ) from error


def require_settings(storage: Storage) -> StoreSettings:
    """Return the settings of a store. Raises StoreError if there is none."""
    settings = read_settings(storage)
    if settings is None:
        raise StoreError(f"{storage.root}: {why_no_store(storage)}")
    return settings


def require_format(content: Any, name: str, version: int) -> None:
    """Raise Faults unless a file's JSON states this format and version."""
    found = _read_format(content)
    if (found["format"], found["format_version"]) != (name, version):
        raise Faults(
            [
                f"format: found {shown(found['format'])}, version {found['format_version']}: this "
                f"auravae reads {name}, version {version}"
            ]
        )


_read_format = table({"format": str, "format_version": int}, others=True)


_read_settings = table(
    {
        "stored_dtype": StoredDtype,
        "compute_dtype": str,
        "preparation": dict[str, Any],
        "num_file_shards": Positive,
        "kernels": str,
        "symmetry": str,
        "picture": str,
    },
    optional=("kernels", "symmetry", "picture"),
    others=True,
)


def why_no_store(storage: Storage) -> str:
    """Return why a place without settings is no store: what it is instead, if that is known."""
    if is_file(storage):
        kind = kind_of_file(Path(storage.root))
        return str(kind or "a file: expected a store, which is a folder")
    if is_missing(storage):
        return f"cannot be read: {os.strerror(errno.ENOENT)}"
    return f"not a store: no {SETTINGS_FILE} is there; a store is what `auravae encode` makes of a dataset"


def is_missing(storage: Storage) -> bool:
    """Return whether nothing is at a local place."""
    return not is_remote(storage.root) and not os.path.exists(storage.root)


def is_file(storage: Storage) -> bool:
    """Return whether a place is a local file, and so no store."""
    return not is_remote(storage.root) and os.path.isfile(storage.root)
