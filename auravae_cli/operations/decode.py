"""Decode latent files to pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

from auravae_cli.errors import (
    AuraVaeError,
    LatentFileError,
    LatentMismatchError,
    MissingWeightsError,
    OutputError,
    UsageError,
)
from auravae_cli.files.places import is_remote
from auravae_cli.images.read import Pixels
from auravae_cli.images.write import WRITABLE, picture_bytes, read_provenance
from auravae_cli.latents.latent_file import LatentFile, parse_latents
from auravae_cli.machine.progress import Progress, follow, wants_stages
from auravae_cli.model.codec import Codec
from auravae_cli.model.spec.registry import model_files, name_of
from auravae_cli.operations.batches import Outcome, Ready, done, run, skipped
from auravae_cli.operations.inputs import Source
from auravae_cli.operations.jobs import Names, plan_jobs
from auravae_cli.operations.latent_rows import StoreRow, open_latents, with_stores
from auravae_cli.operations.loading import Loading, codec_of
from auravae_cli.operations.outputs import (
    Job,
    is_pipe,
    is_taken,
    refuse_to_replace,
    to_be_made,
    write_result,
)
from auravae_cli.operations.suffixes import DECODED, LATENTS
from auravae_cli.operations.timed_batches import DECODE_PARTS, Stopwatch


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode latents and write pictures."""

    suffix: str = ".png"
    bits: int = 8
    quality: int = 95
    noise: float = 0.0
    seed: int = 0
    any_model: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ReadLatent:
    """A latent in progress, and the provenance of its picture."""

    latent: LatentFile
    suffix: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class FileDecoder:
    """Reads latents, decodes batches of one size, and writes their pictures.

    ``codec_of`` returns the codec of a latent.
    """

    codec_of: Callable[[LatentFile], Codec]
    options: DecodeOptions
    batch_size: int | None = None

    def read(self, job: Job) -> Ready[ReadLatent] | Outcome:
        """Return the latent and its codec; skipped if its picture exists."""
        options = self.options
        latent, data = read_latent(job.source)
        codec = self.codec_of(latent)
        check_space(latent, codec, options.any_model)
        suffix = options.suffix if job.output is None else job.output.suffix.lower()
        provenance = provenance_of(data, codec, options, suffix)
        if job.output is not None and is_taken(job.output):
            if not options.overwrite and read_provenance(job.output) == provenance:
                return skipped(job)
            refuse_to_replace(job.output, options.overwrite)
            refuse_source(job.output, latent)
        factor = codec.space.downsampling_factor
        height, width = latent.values.shape[-2:]
        pixels = factor * height, factor * width
        content = ReadLatent(latent, suffix, provenance)
        return Ready(job, content, codec, pixels, self.batch_size or codec.batch_size)

    def finish(self, batch: Sequence[Ready[ReadLatent]]) -> list[Outcome]:
        """Decode and write."""
        codec, options = batch[0].codec, self.options
        assert codec is not None
        latents = [ready.content.latent for ready in batch]
        pictures = codec.decode_latents(
            latents, noise=options.noise, seed=options.seed, bits=options.bits
        )
        return [self.write(ready, pixels) for ready, pixels in zip(batch, pictures, strict=True)]

    def write(self, ready: Ready[ReadLatent], pixels: Pixels) -> Outcome:
        """Write a picture."""
        read, quality = ready.content, self.options.quality
        content = picture_bytes(pixels, read.suffix, quality=quality, provenance=read.provenance)
        write_result(ready.job.output, content)
        return done(
            ready.job,
            image_size=list(pixels.shape[:2]),
            orientation=str(read.latent.records[0].orientation),
            bytes=len(content),
        )


def read_latent(source: Source) -> tuple[LatentFile, bytes | memoryview]:
    """A latent, and the bytes of a file that holds it alone. Raises LatentFileError, StoreError."""
    latent, content = _opened(source)
    return latent, latent.to_bytes() if content is None else content


def _opened(source: Source) -> tuple[LatentFile, bytes | memoryview | None]:
    """A latent, of which little more than the header is read yet, and its file's bytes unless it is a row."""
    if isinstance(source, StoreRow):
        return source.read(), None
    opened = None if source.path is None else open_latents(source.path)
    if opened is None:
        content: bytes | memoryview = source.read_bytes(LatentFileError)
        latent = parse_latents(content)
    elif source.row is not None:
        return opened.latents.row(source.row), None
    else:
        content, latent = opened.content, opened.latents
    if latent.is_shard:
        raise LatentFileError("a shard of latents in a stream: name its file, and a folder with -o")
    return latent, content


@dataclass
class CodecByModel:
    """The codec of each latent's own model, which ``load`` gives when the first latent of it comes."""

    load: Callable[[str], Codec]
    _codecs: dict[str, Codec] = field(default_factory=dict)

    def __call__(self, latent: LatentFile) -> Codec:
        """Return the codec. Raises LatentMismatchError if the latent's model is not on this machine."""
        name = name_of(latent.space.model, latent.space.weights_sha256)
        if name not in self._codecs:
            if name not in model_files():  # a checkpoint by path: its name alone does not find it
                raise LatentMismatchError(
                    f"latent of model {name!r} (weights {latent.space.weights_sha256[:12]}), which is "
                    "none of the known ones; name its checkpoint with --model PATH"
                )
            try:
                self._codecs[name] = self.load(name)
            except MissingWeightsError as error:  # this latent fails, others may not
                raise LatentMismatchError(f"latent of model {name!r}: {error}") from error
        return self._codecs[name]


def check_space(latent: LatentFile, codec: Codec, any_model: bool) -> None:
    """Refuse a latent that cannot be decoded, or, unless ``any_model``, one of another model."""
    if not any_model:
        latent.require_space(codec.space)
    if latent.values.shape[-3] != codec.space.irreps.dim:
        raise LatentFileError(
            f"{latent.values.shape[-3]} channels: model {codec.space.model!r} takes {codec.space.irreps.dim}"
        )
    if latent.space.downsampling_factor != codec.space.downsampling_factor:
        raise LatentFileError(
            f"downsampling factor {latent.space.downsampling_factor}: model {codec.space.model!r} "
            f"has {codec.space.downsampling_factor}"
        )


def provenance_of(
    data: bytes | memoryview, codec: Codec, options: DecodeOptions, suffix: str
) -> dict[str, Any]:
    """Return what determines the decoded picture: the latent, the weights and the settings."""
    return {
        "latent_sha256": hashlib.sha256(data).hexdigest(),
        "weights_sha256": codec.space.weights_sha256,
        "model": codec.space.model,
        "bits": options.bits,
        "quality": options.quality if suffix in (".jpg", ".jpeg", ".webp") else None,
        "noise": [options.noise, options.seed] if options.noise else None,
        **({"symmetrized": True} if codec.space.is_symmetrized else {}),
    }


def refuse_source(output: Path, latent: LatentFile) -> None:
    """Raise OutputError if ``output`` is the picture that the latent was made from."""
    try:
        with output.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return
    if digest == latent.records[0].source_sha256:
        raise OutputError(f"{output} is the source picture of this latent: it is never overwritten")


def plan_decode(
    latents: Names, output: str | Path | None, picture_format: str
) -> tuple[list[Job], list[Outcome]]:
    """The jobs of `decode_files`, and the outcomes of latents that have no place."""
    names, expand = with_stores(latents, output)
    return plan_jobs(
        names,
        output,
        input_suffixes=LATENTS,
        suffix=f".{picture_format}",
        tag=DECODED,
        output_suffixes=WRITABLE,
        result_tags=frozenset(),
        expand=expand,
    )


def decode_files(
    latents: Names,
    output: str | Path | None = None,
    *,
    model: str | Codec | None = None,
    picture_format: str = "png",
    bits: int = 8,
    quality: int = 95,
    noise: float = 0.0,
    seed: int = 0,
    any_model: bool = False,
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress[Outcome] | None = None,
    **loading: Unpack[Loading],
) -> list[Outcome]:
    """Decode latent files, shards and stores to pictures, as ``auravae decode`` does.

    Args:
        latents: files, stores (folders or URLs), folders, patterns, or ``-`` for standard input.
        output: as for `encode_files`; with rows of shards and stores, a folder.
        model: as for `encode_files`; None: each latent's own.
        picture_format: ``png``, ``jpg``, ``webp`` or ``tiff``, where names do not say it.
        bits: 8, or 16 for PNG.
        quality: of JPEG and WebP, 1 to 100.
        noise: each value of a latent is multiplied by ``1 + noise * randn`` first, drawn by ``seed``.
        any_model: accept latents of other weights.
        batch_size, overwrite, progress, loading: as for `encode_files`.

    Raises:
        UsageError, ModelError: as `encode_files`. StoreError: a store cannot be reached.
    """
    if bits not in (8, 16):
        raise UsageError(f"{bits}: expected 8 or 16", "bits")
    jobs, refused = plan_decode(latents, output, picture_format)
    options = DecodeOptions(f".{picture_format}", bits, quality, noise, seed, any_model, overwrite)
    if model is None:
        codec_for: Callable[[LatentFile], Codec] = CodecByModel(
            lambda name: codec_of(name, ("decoder",), loading, progress)
        )
    else:
        codec = codec_of(model, ("decoder",), loading, progress)
        codec_for = lambda latent: codec  # noqa: E731
    work = FileDecoder(codec_for, options, batch_size)
    watch = Stopwatch("decode", DECODE_PARTS, progress)
    _look_ahead(watch, jobs, codec_for, overwrite)
    outcomes = run(jobs, work, watch)
    return follow(chain(refused, outcomes), len(refused) + len(jobs), progress)


def _look_ahead(
    watch: Stopwatch, jobs: Sequence[Job], codec_for: Callable[[LatentFile], Codec], overwrite: bool
) -> None:
    """Tell of the work ahead, as if all latents were of the first one's model."""
    todo = to_be_made(jobs, overwrite) if wants_stages(watch.progress) else []
    if not todo:
        return
    first = todo[0].source
    is_far = isinstance(first, StoreRow) and is_remote(first.storage.root)
    if first.path is None or is_pipe(first.path) or is_far:  # reading ahead would read twice
        return
    try:
        codec = codec_for(_opened(first)[0])
    except AuraVaeError:  # the run itself reports it
        return

    def size_of(job: Job) -> tuple[int, int]:
        height, width = _opened(job.source)[0].values.shape[-2:]
        factor = codec.space.downsampling_factor
        return factor * height, factor * width

    watch.look_ahead(codec, todo, size_of)
