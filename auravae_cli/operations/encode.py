"""Pictures => latent files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import InputImageError, LatentFileError
from auravae_cli.images.prepare import Preparation, PreparedImage
from auravae_cli.images.read import count_pixels, read_image
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.machine.memory import BYTES_PER_PIXEL
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import Outcome, Ready, done, run, skipped
from auravae_cli.operations.outputs import (
    Job,
    is_pipe,
    is_taken,
    refuse_to_replace,
    refuse_to_replace_input,
    write_result,
)
from auravae_cli.operations.timed_batches import ENCODE_PARTS, Stopwatch


@dataclass(frozen=True)
class EncodeOptions:
    """How pictures are read and latents stored."""

    preparation: Preparation
    stored_dtype: StoredDtype
    max_pixels: int
    overwrite: bool


@dataclass(frozen=True)
class FileEncoder:
    """Reads a picture, encodes some of one size, and writes their latents."""

    codec: Codec
    options: EncodeOptions
    batch_size: int | None = None

    def read(self, job: Job) -> Ready[PreparedImage] | Outcome:
        """The picture, prepared; skipped where its latent stands there."""
        codec, options = self.codec, self.options
        data = job.source.read_bytes(InputImageError)
        if job.output is not None and is_taken(job.output):
            if not options.overwrite and is_finished(job.output, data, codec, options):
                return skipped(job)
            refuse_to_replace(job.output, options.overwrite)
            refuse_to_replace_input(job.output, data)
        preparation = options.preparation
        loaded = read_image(data, background=preparation.background, max_pixels=options.max_pixels)
        image = preparation.apply(loaded, codec.space.downsampling_factor)
        height, width = loaded.pixels.shape[:2]
        size = BYTES_PER_PIXEL * height * width
        pixels = image.padded.shape[1], image.padded.shape[2]
        return Ready(job, image, codec, pixels, self.batch_size or codec.batch_size, size)

    def finish(self, batch: Sequence[Ready[PreparedImage]]) -> list[Outcome]:
        """Encode and write."""
        images = [ready.content.padded for ready in batch]
        latents = self.codec.encode(np.stack(images) if len(images) > 1 else images[0][None])
        return [self.write(ready, z) for ready, z in zip(batch, latents, strict=True)]

    def write(self, ready: Ready[PreparedImage], z: NDArray[np.float32]) -> Outcome:
        """Put a latent in its place."""
        job, image = ready.job, ready.content
        source = job.source.relative.as_posix() if job.source.path else None
        latent = self.codec.store(z, image, self.options.stored_dtype, source)
        content = latent.to_bytes()
        write_result(job.output, content)
        return done(
            job,
            image.loaded.notices,
            image_size=list(latent.records[0].image_size),
            latent_shape=list(latent.values.shape),
            bytes=len(content),
        )


def encode_files(
    jobs: Iterable[Job], codec: Codec, options: EncodeOptions, batch_size: int | None = None
) -> Iterator[Outcome]:
    """Encode every picture; an outcome for each."""
    jobs = list(jobs)
    # A thread that waits for a pipe could not be ended, and asking for its size would use it up.
    ahead = not any(job.source.path is None or is_pipe(job.source.path) for job in jobs)
    work, watch = FileEncoder(codec, options, batch_size), Stopwatch("encode", ENCODE_PARTS)
    return run(jobs, work, watch, _decoded_size if ahead else None)


def _decoded_size(job: Job) -> int:
    """The bytes that a job's picture takes once it is read; 0 where that cannot be told."""
    assert job.source.path is not None
    return BYTES_PER_PIXEL * count_pixels(job.source.path)


def is_finished(path: Path, data: bytes, codec: Codec, options: EncodeOptions) -> bool:
    """Whether ``path`` is what encoding these bytes with these settings gave before."""
    try:
        latent = read_latents(path)
    except LatentFileError:
        return False
    record = latent.records[0] if not latent.is_shard else None
    return (
        record is not None
        and latent.space == codec.space
        and latent.dtype == options.stored_dtype
        and record.source_sha256 == hashlib.sha256(data).hexdigest()
        and record.preparation == options.preparation.to_json()
        and not record.orientation.axes
    )
