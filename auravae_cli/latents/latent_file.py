"""Latent files: one tensor and one JSON header in a safetensors file.

A file of one latent holds ``latent`` [C, h, w]; a shard holds ``latents`` [N, C, h, w] and one
record per row. The metadata key ``auravae`` is canonical JSON (sorted keys, no spaces), so equal
latents give equal bytes. Needs only numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import LatentFileError, LatentHeaderError, LatentMismatchError
from auravae_cli.files.atomic import atomic_file
from auravae_cli.files.canonical_json import compact, read_json
from auravae_cli.files.kinds import LATENT, START_BYTES, kind_of
from auravae_cli.files.limits import CHANNELS, FILE_BYTES
from auravae_cli.files.mapping import Buffer, map_file
from auravae_cli.files.typed import Faults, Positive, reader, shown, table
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import Array, StoredDtype
from auravae_cli.latents.record import (
    Record as Record,
    act_on_records,
    record_to_json,
    records_from_json,
    records_to_json,
    texts_of_records,
)
from auravae_cli.symmetry.action import act, act_into
from auravae_cli.symmetry.group import GroupElement, Irreps

Stacked = TypeVar("Stacked", bound="LatentFile")
FORMAT_VERSION = 1
METADATA_KEY = "auravae"
_BLOCK_BYTES = 1 << 20  # what is flipped at once stays in the cache


@dataclass(frozen=True)
class LatentSpace:
    """The space of a latent: which weights made it, and how V4 acts on it.

    ``is_symmetrized`` says that the model was averaged over the group (see `symmetrized`).
    """

    model: str
    weights_sha256: str
    downsampling_factor: int
    irreps: Irreps
    clamp: float
    is_symmetrized: bool = False

    def __str__(self) -> str:
        """Return it for messages: ``that of 'small', weights 3f9c..., 12xee+2xoe+2xeo``."""
        averaged = ", averaged over the flips" * self.is_symmetrized
        return (
            f"that of {self.model!r}, weights {self.weights_sha256[:12]}, {self.irreps}{averaged}"
        )

    def is_same(self, other: LatentSpace) -> bool:
        """Return whether it is the same space, whatever its model is called."""
        return self == other or replace(self, model=other.model) == other


@dataclass(frozen=True)
class LatentFile:
    """A latent, or a shard of them, with its header.

    ``values`` is [C, h, w] with one record, or [N, C, h, w] with N; bfloat16 as uint16 words.
    """

    values: Array
    dtype: StoredDtype
    space: LatentSpace
    records: tuple[Record, ...]
    tool_version: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.values.shape

    @property
    def irreps(self) -> Irreps:
        """How the flips act on the channels."""
        return self.space.irreps

    @property
    def is_shard(self) -> bool:
        """Whether this is a stack of latents."""
        return self.values.ndim == 4

    def row(self, index: int) -> Self:
        """Return one latent of a shard, as its own file would hold it; the values are a view."""
        return replace(self, values=self.values[index], records=(self.records[index],))

    def act(self, g: GroupElement | str) -> Self:
        """Apply ``g``, an element or its name, to every latent and its record, exactly."""
        g = GroupElement.of(g)
        values = act(g, self.values, self.space.irreps)
        return replace(self, values=values, records=act_on_records(g, self.records))

    def to_float32(self) -> NDArray[np.float32]:
        """Return the values. Raises LatentFileError if one is not finite, since no decoder can use it."""
        values = self.dtype.to_float32(self.values)
        if not np.isfinite(values).all():
            bad = int(np.size(values) - np.isfinite(values).sum())
            raise LatentFileError(
                f"{bad} of {values.size} values are NaN or infinite: encode the picture again"
            )
        return values

    def require_space(self, space: LatentSpace) -> None:
        """Raise LatentMismatchError unless this latent is in ``space``."""
        for name, found, expected in (
            ("weights", self.space.weights_sha256, space.weights_sha256),
            ("representation", self.space.irreps, space.irreps),
        ):
            if found != expected:
                raise LatentMismatchError(
                    f"latent of model {self.space.model!r} ({name} {str(found)[:12]}), but the model in use "
                    f"is {space.model!r} ({name} {str(expected)[:12]}); name its model with --model, "
                    "or ignore this with --any-model"
                )

    def header(self, metadata: str | None = None) -> bytes:
        """Return the bytes before the values in the file; ``metadata`` instead of its own."""
        name = "latents" if self.is_shard else "latent"
        said = {METADATA_KEY: self.metadata() if metadata is None else metadata}
        return safetensors_file.header_bytes({name: (self.dtype, self.values.shape)}, said)

    def metadata(self, **more: Any) -> str:
        """Return everything except the values as canonical JSON, with ``more`` fields if given."""
        own = records_to_json(self.records) if self.is_shard else record_to_json(self.records[0])
        return compact(self._common() | own | more)

    def metadata_of_rows(
        self, common: Mapping[str, Any], own: Mapping[str, Iterable[Any]]
    ) -> Iterator[str]:
        """Yield the `metadata` of each row of a shard: with ``common`` fields, and with its value of each of ``own``."""
        return texts_of_records(self.records, {**self._common(), **common}, own)

    def _common(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "tool_version": self.tool_version,
            **space_to_json(self.space),
        }

    def to_bytes(self) -> bytes:
        """Return the whole file."""
        return self.header() + self.values.tobytes()


def parse_latents(buffer: Buffer) -> LatentFile:
    """Parse a latent file from its bytes or its memory map; the values are a view of them.

    Raises:
        LatentFileError: not a latent file, damaged, or with unexpected tensors.
        LatentHeaderError: our header is missing, has another version, or contradicts the tensor.
    """
    tensors, metadata = safetensors_file.parse(buffer)
    if METADATA_KEY not in metadata:
        names = ", ".join(map(repr, list(tensors)[:4])) or "nothing"
        kind = kind_of(bytes(buffer[:START_BYTES]))
        raise LatentHeaderError(f"{kind} (it holds {names} and no {METADATA_KEY!r} metadata)")
    shard = "latents" in tensors
    expected = "latents" if shard else "latent"
    if set(tensors) != {expected}:
        kind = kind_of(bytes(buffer[:START_BYTES]))
        found = f"expected the one tensor 'latent' or 'latents', found {shown(sorted(tensors))}"
        raise LatentHeaderError(found if kind in (None, LATENT) else str(kind))
    tensor = tensors[expected]
    return with_metadata(tensor.values, tensor.dtype, metadata[METADATA_KEY], shard=shard)


def with_metadata(
    values: Array, dtype: StoredDtype, metadata: str | dict[str, Any], *, shard: bool = False
) -> LatentFile:
    """Combine a latent [C, h, w], or a shard [N, C, h, w], with the metadata of `LatentFile.metadata`.

    ``metadata`` may be parsed already.

    Raises LatentHeaderError if it is damaged or contradicts the values.
    """
    try:
        content = read_json(metadata) if isinstance(metadata, str) else metadata
        space, records, tool_version = _read_header(content, shard)
    except ValueError as error:
        raise LatentHeaderError(f"damaged {METADATA_KEY!r} header: {error}") from error
    _check_shape(values.shape, values.itemsize, space, records, shard)
    return LatentFile(values, dtype, space, records, tool_version)


def read_latents(path: Path | str) -> LatentFile:
    """Read a latent file or a shard; a large one is memory-mapped. Raises LatentFileError."""
    return parse_latents(map_file(Path(path), LatentFileError))


def flipped_chunks(latents: LatentFile, g: GroupElement) -> Iterator[bytes | memoryview]:
    """Yield the bytes of ``latents.act(g)`` in pieces; a shard needs memory only for its header.

    A piece is valid until the next one is requested.
    """
    yield replace(latents, records=act_on_records(g, latents.records)).header()
    rows = latents.values if latents.is_shard else latents.values[None]
    at_once = max(1, _BLOCK_BYTES // max(1, rows[:1].nbytes))
    block = np.empty((min(at_once, len(rows)), *rows.shape[1:]), rows.dtype)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        act_into(block[: len(part)], g, part, latents.space.irreps)
        yield block[: len(part)].data


def write_flipped(path: Path, latents: LatentFile, g: GroupElement) -> None:
    """Write ``latents.act(g)`` to a file. Raises OutputError if it cannot be written."""
    with atomic_file(path) as file:
        for chunk in flipped_chunks(latents, g):
            file.write(chunk)


def stack(latents: Sequence[Stacked]) -> Stacked:
    """Stack single latents that agree in shape, dtype and space. Raises ValueError if they do not."""
    first = latents[0]
    if any(
        (z.values.shape, z.dtype, z.space) != (first.values.shape, first.dtype, first.space)
        for z in latents
    ):
        raise ValueError("a shard holds latents of one shape, dtype and latent space")
    values = np.stack([z.values for z in latents])
    return replace(first, values=values, records=tuple(z.records[0] for z in latents))


def _read_header(
    content: dict[str, Any], shard: bool
) -> tuple[LatentSpace, tuple[Record, ...], str]:
    """Parse the parts of a header's JSON. Raises Faults."""
    header = _read_versions(content)
    if header["format_version"] != FORMAT_VERSION:
        raise LatentHeaderError(
            f"latent format version {header['format_version']}: this auravae reads version "
            f"{FORMAT_VERSION}; use the release that wrote it"
        )
    return space_from_json(content), records_from_json(content, shard), header["tool_version"]


def space_to_json(space: LatentSpace) -> dict[str, Any]:
    """Return a space's fields as JSON types, as in a header; ``symmetrized`` only if it is true."""
    return ({"symmetrized": True} if space.is_symmetrized else {}) | {
        "model": space.model,
        "weights_sha256": space.weights_sha256,
        "downsampling_factor": space.downsampling_factor,
        "representation": str(space.irreps),
        "clamp": space.clamp,
    }


def space_from_json(content: Any) -> LatentSpace:
    """Parse a space from JSON; other fields are ignored. Raises Faults."""
    try:  # the rows of a file of many have one
        named = [name for name in _SPACE_FIELDS if name in content]
        return _space_of(tuple(named), *[content[name] for name in named])
    except TypeError:  # no table, or one with tables in it
        return _parse_space(content)


@lru_cache(64, typed=True)  # since 8, 8.0 and true differ here
def _space_of(names: tuple[str, ...], *values: Any) -> LatentSpace:
    return _parse_space(dict(zip(names, values, strict=True)))


def _parse_space(content: Any) -> LatentSpace:
    found = _read_space(content)
    return LatentSpace(
        model=found["model"],
        weights_sha256=found["weights_sha256"],
        downsampling_factor=found["downsampling_factor"],
        irreps=found["representation"],
        clamp=found["clamp"],
        is_symmetrized=found.get("symmetrized", False),
    )


def _read_clamp(value: Any) -> float:
    clamp: float = reader(float)(value)
    if clamp <= 0:
        raise Faults([f": expected a positive number, found {clamp}"])
    return clamp


def _read_irreps(value: Any) -> Irreps:
    irreps: Irreps = reader(Irreps)(value)
    if reason := CHANNELS.excess(irreps.dim):  # a short text can claim any number
        raise Faults([f": {reason}"])
    return irreps


_SPACE_FIELDS = (
    *("model", "weights_sha256", "downsampling_factor", "representation", "clamp", "symmetrized"),
)
_read_versions = table({"format_version": int, "tool_version": str}, others=True)
_read_space = table(
    {
        "model": str,
        "weights_sha256": str,
        "downsampling_factor": Positive,
        "representation": _read_irreps,
        "clamp": _read_clamp,
        "symmetrized": bool,
    },
    optional=("symmetrized",),
    others=True,
)


def _check_shape(
    shape: tuple[int, ...],
    itemsize: int,
    space: LatentSpace,
    records: tuple[Record, ...],
    shard: bool,
) -> None:
    """Check the tensor against the header: channels, rows, and every picture's size."""
    *rows, channels, height, width = (0, 0, 0, *shape)[-4 if shard else -3 :]
    if len(shape) != (4 if shard else 3) or channels != space.irreps.dim:
        raise LatentHeaderError(
            f"expected a latent [{'N, ' * shard}{space.irreps.dim}, h, w] for {space.irreps}, found shape {shape}"
        )
    if reason := FILE_BYTES.excess(channels * height * width * itemsize):  # of one
        raise LatentHeaderError(f"a latent of {reason}")
    if shard and rows[0] != len(records):
        raise LatentHeaderError(f"{rows[0]} latents but {len(records)} records")
    factor = space.downsampling_factor
    for record in records:
        padded = record.padding.padded(*record.image_size)
        if padded != (height * factor, width * factor):
            raise LatentHeaderError(
                f"a latent of {height} x {width} cells stands for {height * factor} x {width * factor} pixels, "
                f"but its header says {record.image_size} with {record.padding}"
            )
