"""Read a store's files of latents, on any storage: complete, or only the header."""

from __future__ import annotations

import tempfile

from auravae_cli.errors import LatentFileError
from auravae_cli.files.mapping import map_or_read
from auravae_cli.files.storage import Storage
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.latent_file import LatentFile, parse_latents


def read_header(storage: Storage, name: str, size: int) -> LatentFile:
    """Return a file of latents of ``size`` bytes with its real header, and zeros for values.

    Of a remote file, only the header is read. Raises FileNotFoundError, StoreError or LatentFileError.
    """
    with storage.open(name) as source, tempfile.TemporaryFile() as sparse:
        start = source.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(size, safetensors_file.MAX_HEADER_BYTES):
            raise LatentFileError(f"not a safetensors file, or one that is cut off: {size} bytes")
        sparse.write(start + source.read(length))
        sparse.truncate(size)  # the rest is a hole, which takes neither disk nor memory
        sparse.flush()
        view = map_or_read(sparse)
        return parse_latents(memoryview(view))
