"""Parquet tables for Hugging Face's datasets: a row per latent, written by pyarrow.

Rules: ``datasets.load_dataset("parquet", ...)`` of datasets 5.2 and pyarrow 26. ``latent`` is a flat
list of fixed length; its ``shape`` and ``dtype`` are columns beside it. A table has latents of one shape, so
each shape has a folder. Arrow has no bfloat16, which becomes float32, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.annotations import (
    CAPTION,
    KEY,
    LABEL,
    annotations_from,
    key_from,
)
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    as_numpy,
    dtype_of,
    known,
    label_of,
    notes_of,
    require_values,
)
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.typed import shown
from auravae_cli.latents.dtypes import STORED_DTYPES, Array
from auravae_cli.latents.latent_file import LatentFile

VALUES, SHAPE, DTYPE = "latent", "shape", "dtype"
_NAMES = (VALUES, "latents", "z")  # names that others use for latents
_ROWS_BYTES = 16 << 20  # of latents in a row group
_ROWS_AT_ONCE = 128  # read


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one table of a stack."""
    shape = "x".join(map(str, latents.values.shape[1:]))
    yield Exported(f"{shape}/{number:06d}.parquet", lambda: _pieces(latents, names))


def _pieces(latents: LatentFile, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the bytes of a table, a group of rows at a time."""
    import pyarrow.parquet as pq

    at_once = max(1, _ROWS_BYTES // max(1, latents.values[:1].nbytes))
    sink = _Sink()
    writer = None
    for start in range(0, len(names), at_once):
        rows = slice(start, start + at_once)
        part = replace(latents, values=latents.values[rows], records=latents.records[rows])
        table = _table(part, names[rows])
        if writer is None:
            how = {"compression": "none", "use_dictionary": False, "write_statistics": False}
            writer = pq.ParquetWriter(sink, table.schema, **how)
        writer.write_table(table)
        yield from sink.taken()
    if writer is not None:
        writer.close()
    yield from sink.taken()


class _Sink:
    """A file that gives what was written to it in pieces."""

    closed = False

    def __init__(self) -> None:
        self._pieces, self._size = list[bytes](), 0

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Do nothing: what was written is there."""

    def close(self) -> None:
        """Do nothing: what was written stays there."""

    def taken(self) -> list[bytes]:
        """Return what was written since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces


def _table(latents: LatentFile, names: Sequence[str]) -> Any:
    """Return the table of a stack; its column of latents is a view of them, if Arrow has their dtype."""
    import pyarrow as pa

    values = as_numpy(latents)
    rows, *shape = values.shape
    flat = pa.array(values.reshape(-1))
    number = pa.field("item", flat.type, nullable=False)  # readers take half the time then
    sides = pa.array(np.tile(np.array(shape, np.int32), rows))
    records = latents.records
    columns = {
        VALUES: pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(number, values[0].size)),
        SHAPE: pa.FixedSizeListArray.from_arrays(sides, 3),
        DTYPE: pa.array([latents.dtype.name] * rows),
        KEY: pa.array([_text(name) for name in names], pa.string()),
        CAPTION: pa.array([_text(r.annotations.get("caption")) for r in records], pa.string()),
        LABEL: pa.array([label_of(record) for record in records], pa.int64()),
        NOTE: pa.array(notes_of(latents), pa.string()),
    }
    return pa.table(columns)


def _text(said: Any) -> str | None:
    """Return a caption or a name as valid text; halves of surrogate pairs become question marks."""
    return None if said is None else str(said).encode(errors="replace").decode()


def read(file: Foreign) -> Iterator[Found]:
    """Yield the latent of every row, some rows at a time."""
    import pyarrow as pa

    try:
        yield from _rows(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise LatentFileError(f"no Parquet file, or a damaged one: {reason}") from error


def _rows(file: Foreign) -> Iterator[Found]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(pa.BufferReader(pa.py_buffer(file.content)))
    columns, meta = table.schema_arrow, table.metadata
    name = next((name for name in _NAMES if name in columns.names), None)
    if name is None:
        raise LatentFileError(f"no column {VALUES!r}: it has {shown(columns.names)}")
    for group in range(meta.num_row_groups):
        FILE_BYTES.check(meta.row_group(group).total_byte_size, LatentFileError)
    others = {name, SHAPE, KEY, CAPTION, LABEL, NOTE}
    ignored = tuple(column for column in columns.names if column not in (*others, DTYPE))
    wanted = [column for column in columns.names if column in others]
    number = 0
    for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
        cells = {other: _cells(batch.column(other)) for other in wanted if other != name}
        rows = _arrays(batch.column(name))
        for row in range(batch.num_rows):
            yield _found(file, cells, rows, row, number, ignored)
            number += 1


def _cells(column: Any) -> list[Any]:
    """Return the values of a column; if one cannot be read, as scalars, each of which fails alone."""
    try:
        values: list[Any] = column.to_pylist()
    except ValueError:  # bytes that are not text
        return list(column)
    return values


def _found(
    file: Foreign,
    cells: dict[str, list[Any]],
    rows: Callable[[int, Sequence[int] | None], Array],
    row: int,
    number: int,
    ignored: tuple[str, ...],
) -> Found:
    def cell(column: str) -> Any:
        value: Any = cells[column][row] if column in cells else None
        return value.as_py() if hasattr(value, "as_py") else value

    key = f"{file.stem}/{number:06d}"
    try:
        said, no_key = key_from(cell(KEY))
        key = said or key
        values = rows(row, cell(SHAPE))
        require_values(values)
        latent = known(values, dtype_of(values), cell(NOTE))
        annotations, refused = annotations_from(cell(CAPTION), cell(LABEL))
    except (LatentFileError, ValueError) as error:
        return Found.unusable(key, error)
    facts = {"annotations": annotations}
    return Found(key, values, dtype_of(values), latent, facts, (*ignored, *refused, *no_key))


def _arrays(column: Any) -> Callable[[int, Sequence[int] | None], Array]:
    """Return a function from a row, and its shape if one is known, to the row's array."""
    kind = column.type
    if not hasattr(kind, "list_size") or hasattr(kind.value_type, "value_type"):
        return partial(_values, column)
    if column.null_count:
        return partial(_values, column)
    flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), kind.list_size)
    return lambda row, shape: flat[row].reshape(shape or (kind.list_size,))


def _values(column: Any, row: int, shape: Sequence[int] | None) -> Array:
    """Return a row's array: a flat list with its shape beside it, or lists in lists."""
    cell, sizes = column[row], list[int]()
    while hasattr(cell, "values") and cell.values is not None:
        sizes.append(len(cell.values))
        if not hasattr(cell.values, "value_lengths"):
            break
        cell = cell.values[0]
    flat = column[row].values
    while hasattr(flat, "flatten") and hasattr(flat, "value_lengths"):
        flat = flat.flatten()
    values: Array = flat.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values).reshape(shape or sizes)


FORMAT = Format(
    name="parquet",
    rules="datasets.load_dataset('parquet') and pyarrow",
    suffixes=frozenset((".parquet",)),
    containers=(".parquet",),
    write=write,
    read=read,
    keeps=frozenset(("caption", "label", "key", "stored_dtype")),
    note="the column 'auravae'",
    dtypes=tuple(name for name in STORED_DTYPES if name != "bfloat16"),
    stacked=True,
    needs="pyarrow",
    advice="latents are flat: `reshape` them to the row's `shape`; each shape has a folder, since a table of "
    "datasets has one",
)
