"""A sample of a dataset: a picture's bytes and its companions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from auravae_cli.errors import InputImageError
from auravae_cli.files.canonical_json import check_depth, read_json
from auravae_cli.files.text import decode_text
from auravae_cli.files.typed import read_as
from auravae_cli.operations.suffixes import is_picture
from auravae_cli.store.ledger import Failure
from auravae_cli.store.manifest import SourceState

Content: TypeAlias = bytes | str  # of a file; or a text, why it could not be read
Member: TypeAlias = tuple[str, Content]  # its suffix, with the dot

# Under the plain key, what is taken before the others, as webdataset's users do
_FIRST = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Sample:
    """A picture on its way: ``source`` is its name in the data set, ``content`` the file's bytes."""

    key: str
    source: str
    content: bytes
    annotations: dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """A sample of an older run whose files are not named now: its row and its ``failures`` go on."""

    key: str
    states: tuple[SourceState, ...]
    failures: tuple[Failure, ...] = ()


def split_name(name: str) -> tuple[str, str]:
    """A member's key and suffix: split at the first dot of the last part, as WebDataset does.

    >>> split_name("a.b/000.seg.png")
    ('a.b/000', '.seg.png')
    """
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = last.partition(".")
    return folder + slash + stem, dot + suffix


def has_picture(members: list[Member]) -> bool:
    """Whether there is one among the members of a key."""
    return any(_is_picture(suffix) for suffix, _ in members)


def make_samples(
    key: str, members: list[Member], passed_over: Counter[str], picture: str | None = None
) -> Iterator[Sample | Failure]:
    """The sample of one key, if it has a picture: that, and the companions.

    The picture is the one under the plain key (``a.jpg``), JPEG before PNG before WebP; those beside it
    (``a.depth.png``) are counted in ``passed_over``. If ``picture`` names suffixes (``depth.png;png``),
    it is the first of these that is there, and all others are counted. A damaged companion is a failure
    beside its sample; a sample of which something stands twice, or whose picture could not be read, is
    a failure itself.
    """
    found = [suffix for suffix, _ in members if _is_picture(suffix)]
    if not found:
        return
    pictures, others = _named(found, picture) if picture else _plain(found)
    passed_over.update(suffix.lower() for suffix in others)
    if not pictures:
        yield Failure(key, "read", f"{key}: none of its pictures is {picture}: {', '.join(found)}")
        return
    suffixes = [suffix.lower() for suffix, _ in members]
    twice = [suffix for n, suffix in enumerate(suffixes) if suffix in suffixes[:n]]
    if twice:
        yield Failure(
            key, "read", f"{key}{twice[0]}: occurs twice; which belongs to which is unknown"
        )
        return
    annotations, failures = read_annotations(key, members)
    try:
        content = require(key + pictures[0], dict(members)[pictures[0]])
        yield Sample(key, key + pictures[0], content, annotations)
    except InputImageError as error:
        yield Failure(key, "read", str(error))
    yield from failures
    for suffix in pictures[1:]:
        yield Failure(key, "read", f"{key}{suffix}: another picture has this key")


def _plain(found: list[str]) -> tuple[list[str], list[str]]:
    """The pictures under the plain key, the first of which counts, and the others; or all there are."""
    plain = [suffix for suffix in found if suffix.count(".") == 1]
    others = [suffix for suffix in found if suffix.count(".") > 1]
    return (sorted(plain, key=_rank), others) if plain else (others, [])


def _named(found: list[str], picture: str) -> tuple[list[str], list[str]]:
    """The picture with the first of these suffixes that is there, and the others."""
    for wanted in picture.split(";"):
        for suffix in found:
            if suffix.lower() == f".{wanted}":
                return [suffix], [other for other in found if other != suffix]
    return [], []


def _is_picture(suffix: str) -> bool:
    return is_picture("_" + suffix)


def _rank(suffix: str) -> int:
    return _FIRST.index(suffix.lower()) if suffix.lower() in _FIRST else len(_FIRST)


def require(name: str, content: Content) -> bytes:
    """Return the content of a member. Raises InputImageError if it could not be read."""
    if isinstance(content, str):
        raise InputImageError(f"{name}: {content}")
    return content


def read_annotations(key: str, members: list[Member]) -> tuple[dict[str, Any], list[Failure]]:
    """Caption, label and metadata from the companions of a key; see `_COMPANIONS`.

    A companion that is not what its suffix says, is nested without end, or could not be read, is a failure
    that names it.
    """
    annotations: dict[str, Any] = {}
    failures: list[Failure] = []
    for suffix, content in members:
        if suffix.lower() not in _COMPANIONS:
            continue
        field, expected, read = _COMPANIONS[suffix.lower()]
        try:
            value = read(require(key + suffix, content))
            check_depth({field: value})
            annotations[field] = value
        except InputImageError as error:
            failures.append(Failure(key, "read", f"{error}; its picture has no {field}"))
        except ValueError as error:
            reason = (
                f"a damaged companion: expected {expected}: {error}; its picture has no {field}"
            )
            failures.append(Failure(key, "read", f"{key}{suffix}: {reason}"))
    return annotations, failures


def _text(content: bytes) -> str:
    return decode_text(content).strip()


# suffix => what it is of a sample, what it is expected to be, how it is read
_COMPANIONS: dict[str, tuple[str, str, Callable[[bytes], Any]]] = {
    ".txt": ("caption", "UTF-8 text", _text),
    ".caption": ("caption", "UTF-8 text", _text),
    ".cls": ("label", "an integer", lambda content: read_as(int, int(decode_text(content)))),
    ".json": ("metadata", "JSON", lambda content: read_json(decode_text(content))),
}
