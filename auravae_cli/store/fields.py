"""Fields of the records of a store, one row at a time: keys, captions, labels, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from auravae_cli.errors import StoreError
from auravae_cli.files.lru import LruCache
from auravae_cli.latents.record import FIELDS as RECORD_FIELDS, Record
from auravae_cli.store.reader import LatentStore

CACHED_FACTS = 1 << 22  # values of fields kept in memory per process


def _of_annotations(name: str) -> Callable[[Record], Any]:
    return lambda record: record.annotations.get(name)


FIELDS: dict[str, Callable[[Record], Any]] = {
    **{name: attrgetter(name) for name in RECORD_FIELDS if name != "annotations"},
    **{name: _of_annotations(name) for name in ("caption", "label", "metadata")},
    "source_box": lambda record: record.source_box and record.source_box.as_tuple(),
}


class FieldReader:
    """Reads some ``fields`` of records; ``missing`` supplies values that a record lacks.

    The first question about a row parses its file's header as a whole; the fields are kept in memory, up
    to `CACHED_FACTS` values. Raises ValueError if a field is unknown.
    """

    def __init__(
        self, store: LatentStore, fields: Iterable[str], missing: Mapping[str, Any]
    ) -> None:
        self.fields, self._store, self._missing = tuple(fields), store, dict(missing)
        for field in (*self.fields, *self._missing):
            if field not in FIELDS:
                raise ValueError(f"unknown field {field!r}: expected some of {', '.join(FIELDS)}")
        budget = CACHED_FACTS // max(1, len(self.fields))
        self._columns: LruCache[list[tuple[Any, ...]]] = LruCache(self._read, budget, len)

    def of(self, number: int, row: int) -> dict[str, Any]:
        """Return the fields of a row of a part. Raises StoreError if a record lacks one."""
        facts = dict(zip(self.fields, self._columns(number)[row], strict=True))
        if None in facts.values():
            self._complete(facts, number, row)
        return facts

    def _read(self, number: int) -> list[tuple[Any, ...]]:
        getters = [FIELDS[field] for field in self.fields]
        return [tuple([get(r) for get in getters]) for r in self._store.records(number)]

    def _complete(self, facts: dict[str, Any], number: int, row: int) -> None:
        for field in [field for field, value in facts.items() if value is None]:
            if field not in self._missing:
                place = f"{self._store.root}/{self._store.parts[number].name}, row {row}"
                raise StoreError(
                    f"{place}: its record has no {field}: ask for other fields, or give "
                    f"a value for it, as in missing={{{field!r}: ...}}"
                )
            facts[field] = self._missing[field]
