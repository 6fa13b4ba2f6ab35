"""WebDataset tars: ``KEY.latent.npy`` and ``KEY.json``, with ``KEY.txt`` and ``KEY.cls`` if known.

Rules: webdataset/webdataset, webdataset/tariterators.py (base_plus_ext: a key ends at the first dot
of the last part of a name) and autodecode.py (npy, json, txt, cls). npy has no bfloat16.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    as_numpy,
    dtype_of,
    known,
    notes_of,
    says_flipped,
)
from auravae_cli.exchange.formats.samples import NAMES
from auravae_cli.exchange.formats.zip_container import npy_header, read_npy
from auravae_cli.files.canonical_json import check_depth, read_json
from auravae_cli.files.limits import FILE_BYTES, TEXT_BYTES, Limit
from auravae_cli.files.tars import DAMAGES, member_header, read_members
from auravae_cli.files.typed import read_as, shown
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.operations.suffixes import TARS

VALUES, NOTES, CAPTION, LABEL = ".latent.npy", ".json", ".txt", ".cls"
_CAPTIONS = (CAPTION, ".caption")
_MEMBERS = (".npy", NOTES, *_CAPTIONS, LABEL)
_USUAL = (*(f".{name}.npy" for name in NAMES), ".npy")  # of latents; VALUES is the first
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_PADDING = [bytes(size) for size in range(_BLOCK)]
Piece = bytes | memoryview
Member = tuple[str, list[Piece]]  # a suffix, and the content


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one tar of a stack."""
    yield Exported(f"{number:06d}.tar", lambda: tar_of(names, _samples(latents)))


def tar_of(names: Sequence[str], samples: Iterable[list[Member]]) -> Iterator[Piece]:
    """Yield a tar of samples; its bytes depend only on the content."""
    size = 0
    for key, sample in zip(keys_of(names), samples, strict=True):
        for piece in _members(key, sample):
            size += len(piece)
            yield piece
    yield _END + bytes(-(size + len(_END)) % tarfile.RECORDSIZE)


def _members(key: str, sample: list[Member]) -> Iterator[Piece]:
    """Yield the members of a sample; what stands before and after its values is one piece."""
    waiting: list[bytes] = []
    for suffix, content in sample:
        size = sum(map(len, content))
        waiting.append(member_header(key + suffix, size))
        for piece in content:
            if isinstance(piece, memoryview):
                yield b"".join(waiting)
                yield piece
                waiting = []
            else:
                waiting.append(piece)
        waiting.append(_PADDING[-size % _BLOCK])
    yield b"".join(waiting)


def keys_of(names: Sequence[str]) -> list[str]:
    """Return unique keys without dots, which would end a key.

    >>> keys_of(["a/b.c", "a/b_c", "d"])
    ['a/b_c', 'a/b_c_1', 'd']
    """
    keys: dict[str, None] = {}
    for name in names:
        folder, slash, last = name.rpartition("/")
        key = plain = folder + slash + last.replace(".", "_")
        number = 0
        while key in keys:
            number += 1
            key = f"{plain}_{number}"
        keys[key] = None
    return list(keys)


def _samples(latents: LatentFile) -> Iterator[list[Member]]:
    for row, note in enumerate(notes_of(latents)):
        annotations = latents.records[row].annotations
        sample: list[Member] = [(VALUES, npy_of(latents.row(row))), (NOTES, [note.encode()])]
        if "caption" in annotations:
            caption = str(annotations["caption"]).encode(errors="replace")
            sample.append((CAPTION, [caption]))
        if "label" in annotations:
            sample.append((LABEL, [str(annotations["label"]).encode()]))
        yield sample


def npy_of(latent: LatentFile) -> list[Piece]:
    """Return a latent as an .npy file."""
    values = as_numpy(latent)
    return [npy_header(values), values.reshape(-1).view(np.uint8).data]


def read(file: Foreign, prompt: str = "") -> Iterator[Found]:
    """Yield every sample that has a latent; everything except arrays, captions and labels is ignored.

    ``prompt`` is the name that a caption has in the ``.json``, if any.
    """
    key, members, size, most = "", dict[str, Piece | str](), 0, FILE_BYTES.value
    try:
        for member, content in read_members(file.content, limit_of):
            folder, slash, last = member.removeprefix("./").rpartition("/")
            stem, dot, suffix = last.partition(".")
            if folder + slash + stem != key:
                yield from _found_or_fault(key, members, prompt)
                key, members, size = folder + slash + stem, {}, 0
            size += len(content)  # of all members of one key, which are held together
            members[dot + suffix] = FILE_BYTES.excess(size) if size > most else content
        yield from _found_or_fault(key, members, prompt)
    except DAMAGES as error:
        reason = str(error) or type(error).__name__
        raise LatentFileError(f"damaged or cut off: {reason}") from error


def limit_of(name: str) -> Limit | None:
    """Return the limit of a member, by its name; None if it is not wanted."""
    if not name.endswith(_MEMBERS):
        return None
    return FILE_BYTES if name.endswith(".npy") else TEXT_BYTES


def _found_or_fault(key: str, members: dict[str, Piece | str], prompt: str) -> Iterator[Found]:
    """Yield a sample's latent; a damaged sample fails alone."""
    try:
        whole = {}
        for suffix, content in members.items():
            if isinstance(content, str):
                raise LatentFileError(f"{suffix}: {content}")
            whole[suffix] = content
        yield from _found(key, whole, prompt)
    except LatentFileError as error:
        yield Found.unusable(key, error)


def _found(key: str, members: dict[str, Piece], prompt: str) -> Iterator[Found]:
    arrays = [suffix for suffix in members if suffix.endswith(".npy")]
    if not arrays:
        return
    name = _latent_among(arrays)
    said = next((suffix for suffix in _CAPTIONS if suffix in members), None)
    others = (*arrays, *_CAPTIONS)
    ignored = tuple(suffix for suffix in members if suffix in others and suffix not in (name, said))
    annotations: dict[str, Any] = {}
    try:
        values = read_npy(members[name])
        if said is not None:
            annotations["caption"] = str(members[said], "utf-8").strip()
        if LABEL in members:
            annotations["label"] = read_as(int, int(bytes(members[LABEL])))
        latent = None
        content = read_json(str(members.get(NOTES, b"null"), "utf-8"))
        if isinstance(content, dict) and "weights_sha256" in content:  # ours
            latent = known(values, dtype_of(values), content)
        elif content is not None:
            annotations["metadata"] = content
            check_depth(annotations)
        caption = content.get(prompt) if isinstance(content, dict) else None
        if isinstance(caption, str) and caption:
            annotations["caption"] = caption
    except ValueError as error:
        raise LatentFileError(str(error)) from error
    yield Found(key, values, dtype_of(values), latent, {"annotations": annotations}, ignored)


def _latent_among(arrays: Sequence[str]) -> str:
    """Return which of a sample's arrays is its latent: the one with a usual name, or the first."""
    able = [suffix for suffix in arrays if not says_flipped(suffix)]
    if not able:
        raise LatentFileError(f"only flipped copies, {shown(list(arrays))}: expected {VALUES!r}")
    return next((suffix for suffix in _USUAL if suffix in able), able[0])


FORMAT = Format(
    name="webdataset",
    rules="webdataset/webdataset, tariterators.py and autodecode.py",
    suffixes=frozenset((".tar", ".gz", ".tgz")),
    ignores=lambda name: not name.lower().endswith(TARS),  # stats.json.gz, beside the tars
    write=write,
    read=read,
    keeps=frozenset(
        ("model", "weights_sha256", "downsampling_factor", "representation", "clamp")
        + ("tool_version", "image_size", "padding", "orientation", "source", "source_sha256")
        + ("exif_orientation", "preparation", "key", "source_size", "source_box")
        + ("caption", "label", "metadata")
    ),
    note="each sample's .json",
    dtypes=("float16", "float32"),
    stacked=True,
    containers=TARS,
)
