"""Flip latent files and shards, with neither a model nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from auravae_cli.errors import LatentFileError, UsageError
from auravae_cli.latents.latent_file import (
    LatentFile,
    flipped_chunks,
    parse_latents,
    read_latents,
    write_flipped,
)
from auravae_cli.machine.progress import Progress, follow
from auravae_cli.operations.batches import Outcome, Ready, done, run, skipped
from auravae_cli.operations.jobs import Names, plan_jobs
from auravae_cli.operations.outputs import (
    Job,
    holds,
    is_taken,
    refuse_to_replace,
    write_to_stdout,
)
from auravae_cli.operations.suffixes import FLIP_TAGS, LATENTS
from auravae_cli.symmetry.group import GroupElement


@dataclass(frozen=True)
class FileFlipper:
    """Reads latents and writes them flipped by ``g``."""

    g: GroupElement
    overwrite: bool

    def read(self, job: Job) -> Ready[LatentFile] | Outcome:
        """Return the latents; skipped if the result exists."""
        if job.source.path is None:
            latents = parse_latents(job.source.read_bytes(LatentFileError))
        else:
            latents = read_latents(job.source.path)
        if job.output is not None and is_taken(job.output):
            if not self.overwrite and holds(job.output, flipped_chunks(latents, self.g)):
                return skipped(job)
            refuse_to_replace(job.output, self.overwrite)
        return Ready(job, latents)

    def finish(self, batch: Sequence[Ready[LatentFile]]) -> list[Outcome]:
        """Flip and write."""
        return [self.write(ready.job, ready.content) for ready in batch]

    def write(self, job: Job, latents: LatentFile) -> Outcome:
        """Write the flipped latents."""
        if job.output is None:
            write_to_stdout(flipped_chunks(latents, self.g))
        else:
            write_flipped(job.output, latents, self.g)
        return done(job, latents=len(latents.records), by=str(self.g))


def flip_files(
    latents: Names,
    by: GroupElement | str,
    output: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress[Outcome] | None = None,
) -> list[Outcome]:
    """Flip latent files and shards by ``by`` (``h``, ``v`` or ``hv``), as ``auravae flip`` does.

    Args:
        latents, output, overwrite, progress: as for `encode_files`.

    Raises:
        UsageError: no input is there, the output cannot take it, or ``by`` flips nothing.
    """
    by = GroupElement.of(by)
    if not by.axes:
        raise UsageError("say how to flip: by H, V or HV", "by")
    jobs, refused = plan_jobs(
        latents,
        output,
        input_suffixes=LATENTS,
        suffix=".safetensors",
        tag=f".{by}",
        output_suffixes=LATENTS,
        result_tags=frozenset() if output else FLIP_TAGS,
    )
    outcomes = run(jobs, FileFlipper(by, overwrite))
    return follow(chain(refused, outcomes), len(refused) + len(jobs), progress)
