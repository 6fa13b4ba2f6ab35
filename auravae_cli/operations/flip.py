"""Latent files and shards => the same, flipped. No model, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from auravae_cli.errors import LatentFileError
from auravae_cli.latents.latent_file import (
    LatentFile,
    flipped_chunks,
    parse_latents,
    read_latents,
    write_flipped,
)
from auravae_cli.operations.batches import Outcome, Ready, done, run, skipped
from auravae_cli.operations.outputs import (
    Job,
    holds,
    is_taken,
    refuse_to_replace,
    write_to_stdout,
)
from auravae_cli.symmetry.group import GroupElement


def flip_files(jobs: Iterable[Job], g: GroupElement, *, overwrite: bool) -> Iterator[Outcome]:
    """Apply ``g`` to every latent of every file; an outcome for each file."""

    def load(job: Job) -> Ready[LatentFile] | Outcome:
        if job.source.path is None:
            latents = parse_latents(job.source.read_bytes(LatentFileError))
        else:
            latents = read_latents(job.source.path)
        if job.output is not None and is_taken(job.output):
            if not overwrite and _is_flipped(job, latents, g):
                return skipped(job)
            refuse_to_replace(job.output, overwrite)
        return Ready(job, None, latents)

    def finish(batch: Sequence[Ready[LatentFile]]) -> list[Outcome]:
        return [store(ready.job, ready.content) for ready in batch]

    def store(job: Job, latents: LatentFile) -> Outcome:
        if job.output is None:
            write_to_stdout(flipped_chunks(latents, g))
        else:
            write_flipped(job.output, latents, g)
        return done(job, latents=len(latents.records), by=str(g))

    return run(jobs, load, finish)


def _is_flipped(job: Job, latents: LatentFile, g: GroupElement) -> bool:
    """Whether the output holds this very result."""
    return job.output is not None and holds(job.output, flipped_chunks(latents, g))
