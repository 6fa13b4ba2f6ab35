"""The contents of a store, from its manifests, and the distribution of its values."""

from __future__ import annotations

from dataclasses import dataclass, field

from auravae_cli.errors import LatentFileError, StoreError
from auravae_cli.files.storage import Storage
from auravae_cli.latents.blocks import blocks
from auravae_cli.latents.latent_file import LatentFile, parse_latents
from auravae_cli.latents.statistics import ChannelStatistics
from auravae_cli.store.certificate import mismatch, read_certificate
from auravae_cli.store.manifest import iterate_manifests, missing_shards
from auravae_cli.store.settings import StoreSettings, require_settings


@dataclass
class StoreInfo:
    """The counts of a store; ``rows_of_shape`` maps (h, w) in cells to rows, largest first.

    ``certificate`` is the statement of the store's certificate, or what is wrong with it.
    """

    settings: StoreSettings
    shards: int = 0
    rows: int = 0
    failures: int = 0
    bytes: int = 0
    rows_of_shape: dict[tuple[int, int], int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    certificate: str | None = None
    missing_shards: int = 0


def survey(storage: Storage) -> StoreInfo:
    """Count what a store holds. Raises StoreError if there is none, or it is damaged."""
    settings = require_settings(storage)
    info = StoreInfo(settings, certificate=_certificate(storage, settings))
    rows_of_shape: dict[tuple[int, int], int] = {}
    shards = []
    for manifest in iterate_manifests(storage):
        shards.append(manifest.shard)
        info.shards += 1
        info.rows += manifest.rows
        info.failures += manifest.failures
        for output in manifest.outputs:
            info.bytes += output.size
            info.files.append(output.name)
            cells = output.shape[-2], output.shape[-1]
            rows_of_shape[cells] = rows_of_shape.get(cells, 0) + output.shape[0]
    info.missing_shards = missing_shards(settings, shards)[0]
    info.rows_of_shape = dict(sorted(rows_of_shape.items(), key=lambda item: (-item[1], item[0])))
    return info


def _certificate(storage: Storage, settings: StoreSettings) -> str | None:
    """Return the certificate's statement, or why it does not apply to this store."""
    try:
        certificate = read_certificate(storage)
    except StoreError as error:
        return f"none that is sound: {error}"
    if certificate is None:
        return None
    reason = mismatch(certificate.space, settings.space)
    return f"none that holds here: {reason}" if reason else certificate.statement


def count_values(storage: Storage, info: StoreInfo) -> ChannelStatistics:
    """Read all values of a store, a few megabytes at a time. Raises StoreError."""
    space = info.settings.space
    statistics = ChannelStatistics.empty(space.irreps.dim, space.clamp)
    for name in info.files:
        try:
            latents = parse_latents(storage.map(name))
            latents.require_space(space)
        except FileNotFoundError:
            raise StoreError(f"{storage.root}/{name}: missing; see `auravae verify`") from None
        except LatentFileError as error:
            raise StoreError(f"{storage.root}/{name}: {error}; see `auravae verify`") from error
        add_values(statistics, latents)
    return statistics


def add_values(statistics: ChannelStatistics, latents: LatentFile) -> None:
    """Add the values of a latent or a shard, a few megabytes at a time."""
    rows = latents.values if latents.is_shard else latents.values[None]
    for _, block in blocks(rows):
        statistics.add(latents.dtype.to_float32(block))
