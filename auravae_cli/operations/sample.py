"""A sample of a dataset: a picture's bytes and what stands beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from auravae_cli.errors import InputImageError
from auravae_cli.files.canonical_json import check_depth, read_json
from auravae_cli.files.typed import read_as
from auravae_cli.operations.sources import is_picture
from auravae_cli.store.format import Failure

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
    key: str, members: list[Member], passed_over: Counter[str]
) -> Iterator[Sample | Failure]:
    """The sample of one key, if it has a picture: that, and the companions.

    The picture is the one under the plain key (``a.jpg``), JPEG before PNG before WebP; those beside it
    (``a.depth.png``) are counted in ``passed_over``. A sample that lacks what could not be read, or of
    which something stands twice, is a failure.
    """
    plain = [suffix for suffix, _ in members if _is_picture(suffix) and suffix.count(".") == 1]
    others = [suffix for suffix, _ in members if _is_picture(suffix) and suffix.count(".") > 1]
    pictures = sorted(plain, key=_rank) or others
    if not pictures:
        return
    if plain:
        passed_over.update(suffix.lower() for suffix in others)
    suffixes = [suffix.lower() for suffix, _ in members]
    twice = [suffix for n, suffix in enumerate(suffixes) if suffix in suffixes[:n]]
    if twice:
        yield Failure(
            key, "read", f"{key}{twice[0]}: stands twice; which belongs to which is unknown"
        )
        return
    try:
        whole = {suffix: require(key + suffix, content) for suffix, content in members}
        annotations = read_annotations(key, list(whole.items()))
        yield Sample(key, key + pictures[0], whole[pictures[0]], annotations)
    except InputImageError as error:
        yield Failure(key, "read", str(error))
    for suffix in pictures[1:]:
        yield Failure(key, "read", f"{key}{suffix}: another picture has this key")


def _is_picture(suffix: str) -> bool:
    return is_picture("_" + suffix)


def _rank(suffix: str) -> int:
    return _FIRST.index(suffix.lower()) if suffix.lower() in _FIRST else len(_FIRST)


def require(name: str, content: Content) -> bytes:
    """Return the content of a member. Raises InputImageError if it could not be read."""
    if isinstance(content, str):
        raise InputImageError(f"{name}: {content}")
    return content


def read_annotations(key: str, members: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Caption, label and metadata from the companions of a key; see `_COMPANIONS`.

    Raises InputImageError, with the companion's name, where one is not what its suffix says, or is
    nested without end.
    """
    annotations: dict[str, Any] = {}
    for suffix, content in members:
        if suffix.lower() not in _COMPANIONS:
            continue
        field, expected, read = _COMPANIONS[suffix.lower()]
        try:
            annotations[field] = read(content)
            check_depth(annotations)
        except ValueError as error:
            raise InputImageError(
                f"{key}{suffix}: a damaged companion: expected {expected}: {error}"
            ) from error
    return annotations


def _text(content: bytes) -> str:
    return content.decode().strip()


# suffix => what it is of a sample, what it is expected to be, how it is read
_COMPANIONS: dict[str, tuple[str, str, Callable[[bytes], Any]]] = {
    ".txt": ("caption", "UTF-8 text", _text),
    ".caption": ("caption", "UTF-8 text", _text),
    ".cls": ("label", "an integer", lambda content: read_as(int, int(content))),
    ".json": ("metadata", "JSON", read_json),
}
