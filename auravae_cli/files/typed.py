"""Convert plain data from JSON and TOML to values of declared types, and name everything that is wrong.

Types are declared by annotations of a dataclass's fields, or of a table (`table`). If values can
contradict each other, a ``faults`` property of the dataclass reports it::

   @dataclass(frozen=True)
   class Output:
       name: str
       shape: tuple[Positive, Positive]

   read_as(Output, {"name": 5, "shape": [0, 2]})
       => Faults: name: expected str, found 5; shape[0]: expected a number from 1, found 0
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Set
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from inspect import isfunction
from types import UnionType
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

Natural = Annotated[int, 0]  # annotated with the smallest allowed value
Positive = Annotated[int, 1]

Kind = TypeVar("Kind")
Reader = Callable[[Any], Any]

_LARGEST = 2**63  # largest integer that numpy, torch and other languages can represent
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class Faults(ValueError):
    """All faults of plain data; each starts with the name of its field.

    ``value`` is the value that could be built nevertheless, if the only faults are contradictions.
    """

    def __init__(self, found: Iterable[str], value: Any = None) -> None:
        self.found, self.value = tuple(found), value
        super().__init__("; ".join(self.lines))

    @property
    def lines(self) -> list[str]:
        """One sentence per fault."""
        return [fault.removeprefix(": ") for fault in self.found]

    def within(self, place: str) -> list[str]:
        """Return the same faults, as those of the field ``place`` of something else."""
        return [place + (f if f[0] in ":[" else f".{f}") for f in self.found]


def read_as(kind: type[Kind], value: Any) -> Kind:
    """Return the value as a ``kind``. Raises Faults."""
    return cast(Kind, reader(cast(Hashable, kind))(value))


def table(
    kinds: Mapping[str, Any], *, optional: Collection[str] = (), others: bool = False
) -> Callable[[Any], dict[str, Any]]:
    """Return a reader that takes the fields named by ``kinds`` out of a table, or raises Faults.

    Those in ``optional`` may be absent; if ``others``, there may be more, which are ignored.
    """
    readers = {name: reader(kind) for name, kind in kinds.items()}
    required = dict.fromkeys(name for name in kinds if name not in optional).keys()
    return lambda value: _read_fields(readers, required, value, others)


@cache
def reader(kind: Any) -> Reader:
    """Return a function that makes a ``kind`` of plain data, or raises Faults.

    Kinds: ``Any``, the plain types, `Natural` and `Positive`, types ``Annotated`` with their own reader,
    ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``, ``X | None``, dataclasses, classes with a
    ``parse`` method for text, and readers themselves.
    """
    if isfunction(kind):
        return cast(Reader, kind)
    if get_origin(kind) in _GENERIC:
        return _GENERIC[get_origin(kind)](get_args(kind))
    if hasattr(kind, "parse"):
        return _parsed(kind.parse)
    return _dataclass(kind) if is_dataclass(kind) else _PLAIN.get(kind) or _plain(kind)


def shown(value: Any) -> str:
    """Return a value for a message, shortened if it is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits, which Python does not print
        return f"{type(value).__name__} of many digits"


def _unexpected(expected: str, value: Any) -> Faults:
    return Faults([f": expected {expected}, found {shown(value)}"])


def _plain(kind: type) -> Reader:
    name = "a table" if kind is dict else kind.__name__

    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise _unexpected(name, value)
        return value

    return read


def _integer(least: int) -> Reader:
    def read(value: Any) -> int:
        if type(value) is not int:
            raise _unexpected("int", value)
        if value < least:
            raise _unexpected(f"a number from {least}", value)
        if value >= _LARGEST:
            raise _unexpected("a number of 64 bits", value)
        return value

    return read


def _float(value: Any) -> float:
    if type(value) is float and -math.inf < value < math.inf:
        return value
    if type(value) not in (int, float):
        raise _unexpected("float", value)
    if (not -_LARGEST < value < _LARGEST and type(value) is int) or not math.isfinite(value):
        raise _unexpected("a finite number", value)
    return float(value)


def or_none(read: Reader) -> Reader:
    """Return a reader that also accepts None."""
    return lambda value: None if value is None else read(value)


def _parsed(parse: Callable[[str], Any]) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not str:
            raise _unexpected("str", value)
        try:
            return parse(value)
        except ValueError as error:
            raise Faults([f": {error}"]) from None

    return read


def _sequence(readers: list[Reader], any_length: bool) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) not in (list, tuple):
            raise _unexpected("a list", value)
        if not any_length and len(value) != len(readers):
            raise _unexpected(f"a list of {len(readers)}", value)
        each = readers * len(value) if any_length else readers
        try:  # nearly all are sound, and then tracking places costs nothing
            return tuple([read_item(item) for read_item, item in zip(each, value, strict=True)])
        except Faults:
            pass
        found, faults = [], []
        for index, item in enumerate(value):
            try:
                found.append(readers[0 if any_length else index](item))
            except Faults as error:
                faults += error.within(f"[{index}]")
                found.append(error.value)
        if faults:
            raise Faults(faults, None if None in found else tuple(found))
        return tuple(found)

    return read


def _mapping(read_item: Reader) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        readers = dict.fromkeys(value if type(value) is dict else (), read_item)
        return _read_fields(readers, frozenset(), value, others=False)

    return read


def _dataclass(kind: Any) -> Reader:
    hints = get_type_hints(kind, include_extras=True)
    readers = {field.name: reader(hints[field.name]) for field in fields(kind)}
    needed = (f.name for f in fields(kind) if f.default is f.default_factory is MISSING)
    required = dict.fromkeys(needed).keys()  # an ordered set

    def read(value: Any) -> Any:
        faults: tuple[str, ...] = ()
        try:
            found = _read_fields(readers, required, value, others=False)
        except Faults as error:
            if error.value is None:
                raise
            found, faults = error.value, error.found
        built = kind(**found)
        if faults := (*faults, *getattr(built, "faults", ())):
            raise Faults(faults, built)
        return built

    return read


def _read_fields(
    readers: Mapping[str, Reader], required: Set[str], value: Any, others: bool
) -> dict[str, Any]:
    if type(value) is not dict:
        raise _unexpected("a table", value)
    try:  # as above; an unknown name raises KeyError
        found = {n: readers[n](item) for n, item in value.items() if not others or n in readers}
        if found.keys() >= required:
            return found
    except (Faults, KeyError):
        pass
    found, faults, whole = {}, [], True
    for name, item in value.items():
        read = readers.get(name)
        if read is not None:
            try:
                found[name] = read(item)
            except Faults as error:
                faults += error.within(name)
                found[name], whole = error.value, whole and error.value is not None
        elif not others:
            faults.append(f"{shown(name)[1:-1]}: unknown key")
    if missing := [name for name in required if name not in value]:
        faults.append(f": missing {', '.join(missing)}")
    if faults:
        raise Faults(faults, found if whole and not missing else None)
    return found


_PLAIN: dict[Any, Reader] = {
    Any: lambda value: value,
    int: _integer(-_LARGEST),
    float: _float,
}
_GENERIC: dict[Any, Callable[[tuple[Any, ...]], Reader]] = {
    Annotated: lambda of: of[1] if isfunction(of[1]) else _integer(of[1]),
    UnionType: lambda choices: or_none(reader(next(c for c in choices if c is not type(None)))),
    tuple: lambda items: _sequence([reader(a) for a in items if a is not ...], items[-1] is ...),
    dict: lambda items: _plain(dict) if items[1] is Any else _mapping(reader(items[1])),
}
