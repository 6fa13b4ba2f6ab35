"""Plan a store of another project's latents: its input shards and its settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from auravae_cli.errors import AuraVaeError, InputImageError, LatentFileError
from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.formats.base import Format
from auravae_cli.exchange.import_files import open_foreign, split
from auravae_cli.files.storage import Entry
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.operations.input_shards import InputShard, make_shards
from auravae_cli.operations.inputs import Source
from auravae_cli.operations.sources import SourceFile
from auravae_cli.store.settings import StoreSettings

COMPUTED_ELSEWHERE = "imported"  # in place of the network's number format


def deal(sources: Iterable[Source], form: Format, num_file_shards: int) -> list[InputShard]:
    """Return the input shards: a file of many latents is one, others are distributed by their names.

    Raises InputImageError if two files have the same name.
    """
    files: dict[str, SourceFile] = {}
    for source in sources:
        assert source.path is not None
        root, key = split(source)
        try:
            status = source.path.stat()
        except (OSError, ValueError) as error:
            raise InputImageError(f"{source.path}: cannot be read: {error}") from error
        entry = Entry(key, status.st_size, str(status.st_mtime_ns))
        if key in files:
            raise InputImageError(
                f"{files[key].root}/{key} and {source.path} would both be {key!r} in the store; name "
                "the folder above them"
            )
        files[key] = SourceFile(root, entry, key)
    return make_shards([files[key] for key in sorted(files)], num_file_shards, form.containers)


def count_file_shards(sources: Sequence[Source], form: Format, shard_size: int) -> int:
    """Return the number of shards for files of one latent each."""
    loose = sum(not form.holds_many(source.name) for source in sources)
    return max(1, -(-loose // shard_size))


def first_latent(sources: Sequence[Source], form: Format, adopt: LatentImporter) -> LatentFile:
    """Return the first latent that can be imported, which determines what all of a store share.

    Raises LatentFileError if there is none.
    """
    reason = "no latent in it"
    for source in sources:
        try:
            for found in form.find(open_foreign(*split(source))):
                try:
                    if not found.is_copy:
                        return adopt(found)
                except AuraVaeError as error:
                    reason = str(error)
        except AuraVaeError as error:
            reason = str(error)
    raise LatentFileError(f"none of {len(sources)} files can be imported; the last: {reason}")


def settings_for(latent: LatentFile, form: Format, num_file_shards: int) -> StoreSettings:
    """Return the settings of a store of imported latents."""
    preparation = {"imported_from": form.name}
    return StoreSettings(
        latent.space, latent.dtype, COMPUTED_ELSEWHERE, preparation, num_file_shards
    )
