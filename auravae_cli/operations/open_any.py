"""Open one latent or one picture from any file: the content decides, not the name."""

from __future__ import annotations

from pathlib import Path

from auravae_cli.errors import InputImageError, LatentFileError
from auravae_cli.images.read import LoadedImage, read_image
from auravae_cli.latents.latent_file import LatentFile, parse_latents, read_latents
from auravae_cli.operations.inputs import Source
from auravae_cli.store.names import is_store
from auravae_cli.store.reader import LatentStore

_NAMED = 5  # keys shown in an error


def open_one(
    source: Source, key: str | None, index: int | None, background: str, max_pixels: int
) -> LatentFile | LoadedImage:
    """Return a picture, a single latent, or the named row of a shard or a store.

    Raises:
        InputImageError: neither a latent nor a picture.
        LatentFileError: a damaged latent, or no such row.
        StoreError: a damaged store.
    """
    if source.path is not None and is_store(str(source.path)):
        return _row_of_store(LatentStore(source.path), key, index)
    if source.path is not None and source.path.is_dir():
        raise InputImageError("a folder, and no store: name a picture or a latent in it")
    content = None if source.path else source.read_bytes(InputImageError)
    start = _start(source.path) if source.path else (content or b"")[:9]
    if start[8:9] == b"{":  # eight bytes of a length, then JSON: safetensors
        latents = parse_latents(content) if source.path is None else read_latents(source.path)  # type: ignore[arg-type]
        return _row(latents, key, index)
    if key is not None or index is not None:
        raise LatentFileError("no shard of latents: --key and --index name a row of one")
    data = source.read_bytes(InputImageError) if content is None else content
    return read_image(data, background=background, max_pixels=max_pixels)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(9)
    except OSError as error:
        raise InputImageError(f"cannot be read: {error.strerror or error}") from error


def _row(latents: LatentFile, key: str | None, index: int | None) -> LatentFile:
    if not latents.is_shard:
        if key is not None or index is not None:
            raise LatentFileError("a single latent: --key and --index name a row of a shard")
        return latents
    number = len(latents.records)
    if key is not None:
        keys = [record.key for record in latents.records]
        if key not in keys:
            raise LatentFileError(f"no row with the key {key!r}: {_some(keys)}")
        return latents.row(keys.index(key))
    if index is None:
        raise LatentFileError(
            f"{number} latents: name one with --index 0 to {number - 1}, or --key"
        )
    if not 0 <= index < number:
        raise LatentFileError(f"no row {index}: it has rows 0 to {number - 1}")
    return latents.row(index)


def _row_of_store(store: LatentStore, key: str | None, index: int | None) -> LatentFile:
    if key is None:
        if index is None or not 0 <= index < len(store):
            asked = "" if index is None else f"no row {index}: "
            raise LatentFileError(
                f"{asked}a store of {len(store)} latents: name one with --index 0 to "
                f"{len(store) - 1}, or --key"
            )
        number, row = store.locate(index)
        return store.latents(number).row(row)
    some: list[str | None] = []
    for number in range(len(store.parts)):
        latents = store.latents(number)
        keys = [record.key for record in latents.records]
        if key in keys:
            return latents.row(keys.index(key))
        some += keys[: _NAMED - len(some)]
    raise LatentFileError(f"no row with the key {key!r}: {_some(some, len(store))}")


def _some(keys: list[str | None], number: int | None = None) -> str:
    known = [repr(key) for key in keys if key is not None][:_NAMED]
    if not known:
        return "its rows have no keys, so name one with --index"
    return f"its {number or len(keys)} rows have keys such as {', '.join(known)}"
