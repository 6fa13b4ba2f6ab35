"""Encode one input shard to a shard of a store: deterministic and idempotent, so any process can do it.

::

    samples --read ahead--> bytes --threads--> prepared pictures --model--> latents --> rows
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import AuraVaeError, StoreError, reason_of
from auravae_cli.images.prepare import Preparation, PreparedImage
from auravae_cli.images.read import count_pixels, read_image
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.machine.memory import BYTES_PER_PIXEL
from auravae_cli.machine.prefetch import (
    DECODED_BYTES,
    prefetch,
    read_ahead,
)
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import group_equal, try_batch
from auravae_cli.operations.sample import Kept, Sample
from auravae_cli.operations.samples import ShardReader
from auravae_cli.operations.suffixes import is_picture
from auravae_cli.store.ledger import Failure
from auravae_cli.store.settings import StoreSettings
from auravae_cli.store.shard_writer import PreviousRows, ShardWriter

READ_AHEAD_BYTES = 64 << 20  # of picture files


@dataclass(frozen=True)
class ShardOptions:
    """How to read and encode an input shard, as far as the result does not depend on it.

    ``max_pixels`` decides what fails; ``batch_size`` can change last bits on a GPU.
    """

    preparation: Preparation
    max_pixels: int
    batch_size: int | None = None
    workers: int | None = None
    drops: bool = False  # rows whose inputs are not named


@dataclass(frozen=True)
class RowDone:
    """A sample has its latent or failed: a step of progress. ``size`` is its file's size in bytes.

    ``kept``: it was not named now, and was there before.
    """

    size: int
    failure: Failure | None
    reused: bool = False
    kept: bool = False


@dataclass(frozen=True)
class _Prepared:
    index: int
    size: int
    sample: Sample
    image: PreparedImage

    @classmethod
    def of(cls, index: int, sample: Sample, image: PreparedImage) -> _Prepared:
        """Keep what is still needed of a sample: not its file, and only the padded pixels."""
        source, framed = (
            np.broadcast_to(pixels.dtype.type(0), pixels.shape)  # takes no memory
            for pixels in (image.loaded.pixels, image.pixels)
        )
        slim = replace(image, loaded=replace(image.loaded, pixels=source), pixels=framed)
        return cls(index, len(sample.content), replace(sample, content=b""), slim)


@dataclass(frozen=True)
class _Settled:
    index: int
    size: int
    item: LatentFile | Failure | None
    reused: bool = False
    kept: bool = False
    failures: tuple[Failure, ...] = ()  # of the same sample, known from before


@dataclass(frozen=True)
class RowEncoder:
    """Reads samples, and encodes pictures of one size; ``old`` has the rows of an older version."""

    codec: Codec
    settings: StoreSettings
    options: ShardOptions
    old: PreviousRows

    def read(self, numbered: tuple[int, Sample | Failure | Kept]) -> _Prepared | _Settled:
        """A sample's picture, prepared; or its latent of before, or why there is none."""
        index, sample = numbered
        if isinstance(sample, Failure):
            return _Settled(index, 0, sample)
        if isinstance(sample, Kept):
            return self._keep(index, sample)
        size, preparation = len(sample.content), self.options.preparation
        if len(self.old):
            digest = hashlib.sha256(sample.content).hexdigest()
            latent = self.old.find(sample.key, digest, sample.source)
            if latent is not None:
                record = replace(latent.records[0], annotations=sample.annotations)
                return _Settled(index, size, replace(latent, records=(record,)), reused=True)
        try:
            picture = read_image(
                sample.content,
                background=preparation.background,
                max_pixels=self.options.max_pixels,
            )
            image = preparation.apply(picture, self.codec.space.downsampling_factor)
            return _Prepared.of(index, sample, image)
        except (AuraVaeError, MemoryError) as error:
            return _Settled(index, size, _failure(sample, "decode", error))

    def _keep(self, index: int, kept: Kept) -> _Settled:
        rows = (self.old.find(kept.key, state.sha256, state.name) for state in kept.states)
        latent = next((row for row in rows if row is not None), None)
        pictures = [state.name for state in kept.states if is_picture(state.name)]
        if latent is None and pictures and not kept.failures:
            if self.old.unreadable:
                raise StoreError(f"{self.old.unreadable}: what is not named now cannot be kept")
            reason = (
                f"{pictures[0]}: its latent is damaged; name the picture, with --retry-failures"
            )
            return _Settled(index, 0, Failure(kept.key, "read", reason))
        return _Settled(index, 0, latent, kept=latent is not None, failures=kept.failures)

    def encode(self, batch: Sequence[_Prepared]) -> list[_Settled]:
        """The latents of pictures of one size."""
        images = [item.image.padded for item in batch]
        latents = self.codec.encode_unit(np.stack(images) if len(images) > 1 else images[0][None])
        return [self._settled(item, z) for item, z in zip(batch, latents, strict=True)]

    def _settled(self, item: _Prepared, z: NDArray[np.float32]) -> _Settled:
        sample, dtype = item.sample, self.settings.stored_dtype
        latent = self.codec.store(
            z, item.image, dtype, sample.source, sample.key, sample.annotations
        )
        record = replace(latent.records[0], computed={})  # the store says it
        latent = replace(latent, space=self.settings.space, records=(record,))
        return _Settled(item.index, item.size, latent)


def encode_rows(
    rows: ShardWriter,
    reader: ShardReader,
    codec: Codec,
    settings: StoreSettings,
    options: ShardOptions,
    old: PreviousRows,
) -> Iterator[RowDone]:
    """Encode every sample of ``reader`` into ``rows``; yield a step of progress for each.

    Raises:
        ModelError: the model cannot run.
        OutputError: the disk is full.
        StoreError: the source cannot be read any more.
    """
    encoder = RowEncoder(codec, settings, options, old)
    batch_size = options.batch_size or codec.batch_size
    samples = enumerate(read_ahead(reader, _file_size, READ_AHEAD_BYTES))
    loaded = prefetch(
        samples,
        encoder.read,
        workers=options.workers,
        cost=_decoded_size,
        budget=DECODED_BYTES,
    )
    for batch in group_equal(
        loaded,
        lambda item: (item.image.padded.shape, batch_size) if isinstance(item, _Prepared) else None,
        lambda item: item.image.padded.nbytes if isinstance(item, _Prepared) else 0,
        DECODED_BYTES,
    ):
        prepared = [item for item in batch if isinstance(item, _Prepared)]
        settled = [item for item in batch if isinstance(item, _Settled)]
        if prepared:
            settled += try_batch(prepared, encoder.encode, _not_encoded)
        for item in settled:
            for known in item.failures:
                rows.add(item.index, known)
            if item.item is None:
                continue
            added = rows.add(item.index, item.item)
            failure = added if isinstance(added, Failure) else None
            yield RowDone(item.size, failure, item.reused, item.kept)
    rows.annotate(reader.late)


def _not_encoded(item: _Prepared, error: Exception) -> _Settled:
    return _Settled(item.index, item.size, _failure(item.sample, "encode", error))


def _failure(sample: Sample, stage: str, error: Exception) -> Failure:
    return Failure(sample.key, stage, f"{sample.source}: {reason_of(error)}")


def _file_size(item: Sample | Failure | Kept) -> int:
    return len(item.content) if isinstance(item, Sample) else 0


def _decoded_size(numbered: tuple[int, Sample | Failure | Kept]) -> int:
    sample = numbered[1]
    if not isinstance(sample, Sample):
        return 0
    return len(sample.content) + BYTES_PER_PIXEL * count_pixels(sample.content)
