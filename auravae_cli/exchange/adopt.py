"""Convert a latent found in a file of another project to one of ours, with checks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from auravae_cli.errors import LatentFileError, LatentMismatchError
from auravae_cli.exchange.formats.annotations import with_edits
from auravae_cli.exchange.formats.base import Found
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.typed import Faults
from auravae_cli.latents.checks import bad_values
from auravae_cli.latents.dtypes import STORED_DTYPES, StoredDtype
from auravae_cli.latents.latent_file import LatentFile, LatentSpace, Record
from auravae_cli.latents.record import record_to_json, records_from_json
from auravae_cli.symmetry.geometry import Padding
from auravae_cli.version import __version__


@dataclass(frozen=True)
class LatentImporter:
    """Imports latents.

    ``assumed`` is the space of latents that do not record theirs; values are rounded to ``stored_dtype``,
    or kept as they are if it is None.
    """

    format_name: str
    assumed: LatentSpace | None = None
    stored_dtype: StoredDtype | None = None

    def __call__(self, found: Found) -> LatentFile:
        """Return the latent. Raises LatentFileError if it is not one, or its model is unknown."""
        if found.fault:
            raise LatentFileError(found.fault)
        FILE_BYTES.check(found.values.nbytes, LatentFileError)
        if found.dtype.name not in STORED_DTYPES:
            raise LatentFileError(
                f"values are {found.dtype.name}: expected one of {', '.join(STORED_DTYPES)}"
            )
        exported = found.known and with_edits(found.known, found.facts.get("annotations", {}))
        latent = self._stored(exported or self._assumed(found))
        faults = list(bad_values(latent))
        if faults:
            raise LatentFileError(
                f"{faults[0]}: no latent of {latent.space.model!r}, or a scaled one"
            )
        return latent

    def _assumed(self, found: Found) -> LatentFile:
        space, shape = self.assumed, found.values.shape
        if space is None:
            raise LatentMismatchError(
                "nothing says which model made these values: if you know, name it with --assume-model"
            )
        if len(shape) != 3 or shape[0] != space.irreps.dim or 0 in shape:
            raise LatentFileError(
                f"shape {list(shape)}: expected [{space.irreps.dim}, h, w], as of {space.model!r}"
            )
        return LatentFile(
            found.values, found.dtype, space, (self._record(found, space),), __version__
        )

    def _record(self, found: Found, space: LatentSpace) -> Record:
        factor, (_, height, width) = space.downsampling_factor, found.values.shape
        size = factor * height, factor * width
        facts = dict(found.facts)
        facts["preparation"] = {"imported_from": self.format_name, **facts.get("preparation", {})}
        if facts.get("source_size") == size:
            del facts["source_size"]
        return _readable(Record(size, Padding(), **facts))

    def _stored(self, latent: LatentFile) -> LatentFile:
        """Return the latent in the requested dtype. If it records its model, that must be the assumed one."""
        if self.assumed is not None and not latent.space.is_same(self.assumed):
            raise LatentMismatchError(
                f"it says that model {latent.space.model!r} ({latent.space.weights_sha256[:12]}) made "
                f"it, not {self.assumed.model!r} ({self.assumed.weights_sha256[:12]}): leave out "
                "--assume-model"
            )
        if self.assumed is not None:
            latent = replace(latent, space=self.assumed)
        if self.stored_dtype is None or self.stored_dtype == latent.dtype:
            return latent
        values = self.stored_dtype.from_float32(latent.dtype.to_float32(latent.values))
        return replace(latent, values=values, dtype=self.stored_dtype)


def _readable(record: Record) -> Record:
    """Return a record of what others say, as it will be read again. Raises LatentFileError if it could not be."""
    try:
        return records_from_json(record_to_json(record), shard=False)[0]
    except Faults as error:
        raise LatentFileError(
            f"what its file says of it cannot be stored: {error}; correct that in the file, or remove it"
        ) from error
