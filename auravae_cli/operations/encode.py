"""Encode pictures to latent files."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS
from auravae_cli.errors import InputImageError, LatentFileError
from auravae_cli.files.atomic import create_atomically
from auravae_cli.images.opening import refuse_other_kinds
from auravae_cli.images.prepare import Preparation, PreparedImage
from auravae_cli.images.read import read_image, read_size
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.machine.memory import BYTES_PER_PIXEL
from auravae_cli.machine.progress import Progress, follow
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit, Outcome, Ready, done, limited, run, skipped
from auravae_cli.operations.jobs import Names, place_of, plan_jobs
from auravae_cli.operations.loading import Loading, codec_of
from auravae_cli.operations.outputs import (
    Job,
    holds,
    is_pipe,
    is_taken,
    refuse_to_replace,
    refuse_to_replace_input,
    write_result,
)
from auravae_cli.operations.suffixes import LATENTS, PICTURE_TAGS, PICTURES
from auravae_cli.operations.timed_batches import ENCODE_PARTS, LOOKED_AT, Stopwatch

_MOST_CLAIMS = 16  # folders beside whose pictures results go; each takes an open file


@dataclass(frozen=True)
class EncodeOptions:
    """How to read pictures and store latents."""

    preparation: Preparation
    stored_dtype: StoredDtype
    max_pixels: int
    overwrite: bool


@dataclass(frozen=True)
class FileEncoder:
    """Reads pictures, encodes batches of one size, and writes their latents."""

    codec: Codec
    options: EncodeOptions
    batch_size: int | None = None

    def read(self, job: Job) -> Ready[PreparedImage] | Outcome:
        """Return the prepared picture; skipped if its latent exists."""
        codec, options = self.codec, self.options
        data = job.source.read_bytes(InputImageError)
        if job.output is not None and is_taken(job.output):
            if not options.overwrite and is_finished(job.output, data, codec, options):
                return skipped(job)
            refuse_other_kinds(data)
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
        latents = self.codec.encode_unit(np.stack(images) if len(images) > 1 else images[0][None])
        return [self.write(ready, z) for ready, z in zip(batch, latents, strict=True)]

    def write(self, ready: Ready[PreparedImage], z: NDArray[np.float32]) -> Outcome:
        """Write a latent."""
        job, image = ready.job, ready.content
        source = job.source.relative.as_posix() if job.source.path else None
        latent = self.codec.store(z, image, self.options.stored_dtype, source)
        content = latent.to_bytes()
        self._publish(job.output, content)
        return done(
            job,
            image.loaded.notices,
            image_size=list(latent.records[0].image_size),
            latent_shape=list(latent.values.shape),
            bytes=len(content),
        )

    def _publish(self, output: Path | None, content: bytes) -> None:
        if output is None or self.options.overwrite:
            write_result(output, content)
        elif not create_atomically(output, content) and not holds(output, [content]):
            refuse_to_replace(output, overwrite=False)  # another run was faster


@contextmanager
def claimed(
    jobs: list[Job], output: str | Path | None, codec: Codec, options: EncodeOptions
) -> Iterator[None]:
    """Hold the folders of several results, so that runs with other settings do not mix theirs in.

    Raises OutputError if such a run is under way.
    """
    if len(jobs) < 2:
        yield
        return
    from auravae_cli.files.run_lock import claim_folder
    from auravae_cli.store.settings import StoreSettings

    folders = {job.source.folder for job in jobs if job.source.path is not None}
    if (place := place_of(output)) is not None:
        folders = {Path(place)}
    space = replace(codec.space, model="")
    settings = StoreSettings(
        space,
        options.stored_dtype,
        codec.compute_dtype,
        options.preparation.to_json(),
        kernels=codec.kernels,
        symmetry=codec.symmetry,
    )
    with ExitStack() as stack:
        for folder in sorted(folders)[:_MOST_CLAIMS]:
            stack.enter_context(claim_folder(folder, settings.sha256))
        yield


def encode_jobs(
    jobs: Iterable[Job],
    codec: Codec,
    options: EncodeOptions,
    batch_size: int | None = None,
    progress: Any = None,
) -> Iterator[Outcome]:
    """Encode every picture; yield an outcome for each. ``progress`` hears what begins."""
    jobs = list(jobs)
    # A thread that waits for a pipe could not be stopped, and asking for the size would consume the pipe.
    ahead = not any(job.source.path is None or is_pipe(job.source.path) for job in jobs)
    size_of = sizes_of(options)
    watch = Stopwatch("encode", ENCODE_PARTS, progress)
    watch.look_ahead(codec, jobs, padded(size_of, codec, options), options.overwrite)

    def decoded_bytes(job: Job) -> int:
        """Return the memory of a job's decoded picture; 0 if unknown."""
        try:
            return BYTES_PER_PIXEL * math.prod(size_of(job))
        except InputImageError:
            return 0

    work = FileEncoder(codec, options, batch_size)
    return run(jobs, work, watch, decoded_bytes if ahead else None)


SizeOf = Callable[[Job], tuple[int, int]]


def sizes_of(options: EncodeOptions) -> SizeOf:
    """Return a function that reads the (height, width) of a job's picture, each header once.

    It raises InputImageError.
    """

    @lru_cache(LOOKED_AT)
    def size_of(job: Job) -> tuple[int, int]:
        assert job.source.path is not None
        return read_size(job.source.path, max_pixels=options.max_pixels)

    return size_of


def padded(size_of: SizeOf, codec: Codec, options: EncodeOptions) -> SizeOf:
    """Return a function of the (height, width) that a job's picture has in the model."""
    factor = codec.space.downsampling_factor
    return lambda job: options.preparation.padded_size(*size_of(job), factor)


def is_finished(path: Path, data: bytes, codec: Codec, options: EncodeOptions) -> bool:
    """Return whether ``path`` holds the result of encoding these bytes with these settings."""
    try:
        latent = read_latents(path)
    except LatentFileError:
        return False
    record = latent.records[0] if not latent.is_shard else None
    return (
        record is not None
        and latent.space.is_same(codec.space)
        and latent.dtype == options.stored_dtype
        and record.source_sha256 == hashlib.sha256(data).hexdigest()
        and record.preparation == options.preparation.to_json()
        and not record.orientation.axes
        and (
            not record.computed or record.computed == codec.computed
        )  # older ones do not record it
    )


def plan_encode(
    pictures: Names,
    output: str | Path | None,
    part: tuple[int, int] = (0, 1),
    passed_over: Counter[str] | None = None,
) -> tuple[list[Job], list[Outcome]]:
    """The jobs of `encode_files`, and the outcomes of pictures that have no place."""
    jobs, refused = plan_jobs(
        pictures,
        output,
        input_suffixes=PICTURES,
        suffix=".safetensors",
        tag="",
        output_suffixes=LATENTS,
        result_tags=PICTURE_TAGS,
        passed_over=passed_over,
    )
    number, of = part
    return jobs[number::of], refused


def encode_files(
    pictures: Names,
    output: str | Path | None = None,
    *,
    model: str | Codec = DEFAULT_MODEL,
    preparation: Preparation = Preparation(),
    latent_dtype: str = "float16",
    max_pixels: int = MAX_PIXELS,
    batch_size: int | None = None,
    overwrite: bool = False,
    part: tuple[int, int] = (0, 1),
    limit: FailureLimit = FailureLimit(),
    progress: Progress[Outcome] | None = None,
    passed_over: Counter[str] | None = None,
    **loading: Unpack[Loading],
) -> list[Outcome]:
    """Encode pictures to latent files, as ``auravae encode`` does; an outcome for each picture.

    Args:
        pictures: files, folders, patterns, or ``-`` for standard input.
        output: a file, a folder that mirrors the inputs, or ``-``; None: beside each input.
        model: a name, a checkpoint's path (``loading`` says how to load it), or a loaded model.
        preparation: crops, sizes, padding.
        latent_dtype: ``float16``, ``bfloat16`` or ``float32``: how latents are stored.
        max_pixels: larger pictures fail.
        batch_size: pictures of one size that run together; None: the model's own.
        overwrite: replace outputs that exist. Finished ones are skipped in any case.
        part: ``(i, n)`` does every n-th job, from the i-th on.
        limit: how many may fail before the run is given up.
        progress: called with each outcome, and how many inputs are done.
        passed_over: counts, by suffix, files of folders that look like pictures but are not read.

    Raises:
        UsageError: no input is there, or the output cannot take it.
        ModelError: the model cannot run. TooManyFailuresError: see ``limit``.
    """
    jobs, refused = plan_encode(pictures, output, part, passed_over)
    options = EncodeOptions(preparation, StoredDtype.parse(latent_dtype), max_pixels, overwrite)
    codec = codec_of(model, ("encoder",), loading, progress)
    with claimed(jobs, output, codec, options):
        outcomes = limited(encode_jobs(jobs, codec, options, batch_size, progress), limit)
        return follow(chain(refused, outcomes), len(refused) + len(jobs), progress)
