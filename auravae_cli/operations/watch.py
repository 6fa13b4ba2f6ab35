"""Watch folders: encode pictures that appear there as soon as they are complete.

It polls, so network folders and all systems behave alike, and nothing has to be installed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Unpack

from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS, STREAM
from auravae_cli.errors import OutputError, UsageError
from auravae_cli.files.spelling import fold, tells_apart
from auravae_cli.images.prepare import Preparation
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.machine.progress import Progress
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import FailureLimit, Outcome, failure, limited
from auravae_cli.operations.encode import EncodeOptions, encode_jobs
from auravae_cli.operations.inputs import Source, collect
from auravae_cli.operations.jobs import Names, listed, place_of
from auravae_cli.operations.loading import Loading, codec_of
from auravae_cli.operations.outputs import Job, plan
from auravae_cli.operations.suffixes import LATENTS, PICTURE_TAGS, PICTURES

SETTLED = 3.0  # seconds without a change, after which a file counts as complete at first sight

State = bytes  # of a file: its size, its modification time, and its inode


@dataclass
class Watcher:
    """The state of some folders: which files were seen, and in which state.

    A file is complete if two looks found it in the same state, or if it has not changed for a while. It is
    returned once per state, so a replaced picture comes again. Deleted files are forgotten, and others
    take little memory, since there can be millions.
    """

    folders: list[str]
    suffixes: frozenset[str]
    result_tags: frozenset[str]
    _growing: dict[str, State] = field(default_factory=dict)
    _given: dict[str, State] = field(default_factory=dict)

    def look(self) -> list[Source]:
        """Return the complete files that are new or changed since they were last returned, in order."""
        states = self._states()
        if states is None:
            return []
        now = time.time()
        complete, growing, given = [], {}, {}
        for source, time_ns, state in states:
            name = str(source.path)
            settled = now - time_ns / 1e9 > SETTLED or self._growing.get(name) == state
            known = self._given.get(name)
            if known != state and settled:
                complete.append(source)
            elif known != state:
                growing[name] = state
            if settled:
                given[name] = state
            elif known is not None:
                given[name] = known
        self._growing, self._given = growing, given
        return complete

    def knows(self, path: str) -> bool:
        """Return whether a file was returned and still exists, as far as can be seen."""
        return path in self._given

    def _states(self) -> list[tuple[Source, int, State]] | None:
        """Return every picture, when it was changed, and its state; None if a folder cannot be read,
        perhaps temporarily.
        """
        if not self._are_there():
            return None
        try:
            sources = collect(self.folders, self.suffixes, self.result_tags)
        except OSError:  # a folder disappeared while it was read
            return None
        states = []
        for source in sources:
            assert source.path is not None
            try:
                found = source.path.stat()
            except OSError:
                continue
            numbers = found.st_size, found.st_mtime_ns, found.st_ino
            states.append((source, found.st_mtime_ns, b"%d %d %d" % numbers))
        # A folder that disappeared would look empty, and its files new when it comes back.
        return states if self._are_there() else None

    def _are_there(self) -> bool:
        return all(os.path.isdir(folder) for folder in self.folders)


def watch(
    watcher: Watcher,
    place: Callable[[Source], Job],
    encode: Callable[[list[Job]], Iterator[Outcome]],
    stop: threading.Event,
    interval: float,
) -> Iterator[Outcome]:
    """Encode existing and new pictures until ``stop`` is set; yield an outcome per file.

    Work in progress is then finished; what waits is left for the next time. A file that is deleted before
    it is read has no outcome. ``interval`` is in seconds; looks that take longer follow each other.
    """
    owners: dict[str, str] = {}  # result => picture
    tells = lru_cache(tells_apart)
    while not stop.is_set():
        started = time.monotonic()
        jobs = []
        complete = watcher.look()
        owners = {output: owner for output, owner in owners.items() if watcher.knows(owner)}
        for source in complete:
            try:
                job = place(source)
            except OutputError as error:  # beside it, but through a link that leads elsewhere
                yield failure(Job(source, None), error)
                continue
            output, picture = str(job.output), str(source.path)
            key = output if job.output is None or tells(job.output.parent) else fold(output)
            owner = owners.setdefault(key, picture)
            if owner != picture and os.path.exists(owner):
                yield failure(job, OutputError(f"{output} is the result of {owner}; rename one"))
            else:
                owners[key] = picture
                jobs.append(job)
        took = time.monotonic() - started
        paths = {job.source.name: job.source.path for job in jobs}
        outcomes = encode(jobs) if jobs else iter(())
        for outcome in outcomes:
            path = paths[outcome.source]
            if outcome.status != "failed" or (path is not None and os.path.exists(path)):
                yield outcome
            if stop.is_set():
                break
        if not jobs:
            stop.wait(max(interval, took))


def watch_folders(
    folders: Names,
    output: str | Path | None = None,
    *,
    stop: threading.Event,
    interval: float = 1.0,
    model: str | Codec = DEFAULT_MODEL,
    preparation: Preparation = Preparation(),
    latent_dtype: str = "float16",
    max_pixels: int = MAX_PIXELS,
    batch_size: int | None = None,
    overwrite: bool = False,
    limit: FailureLimit = FailureLimit(),
    started: Callable[[Codec], None] | None = None,
    progress: Progress[Outcome] | None = None,
    **loading: Unpack[Loading],
) -> None:
    """Encode the pictures in folders, and those that appear there, until ``stop`` is set.

    Args:
        folders: they have to exist.
        output: a folder; None: beside each picture.
        interval: seconds between two looks.
        started: called with the model when it is loaded, before the first look.
        progress: called with each outcome, and how many there are so far, which is all of them.
        model, preparation, latent_dtype, max_pixels, batch_size, overwrite, limit, loading: as for
            `encode_files`.

    Raises:
        UsageError: a folder is missing, or the output is not a folder. ModelError, TooManyFailuresError.
    """
    names, place = listed(folders), place_of(output)
    for name in names:
        if not os.path.isdir(name):
            raise UsageError(f"{name}: expected a folder that exists", "watch")
    if not names:
        raise UsageError("name the folders to watch", "watch")
    if place is not None and (place == STREAM or place.lower().endswith(tuple(LATENTS))):
        raise UsageError(f"{place}: expected a folder", "output")
    options = EncodeOptions(preparation, StoredDtype.parse(latent_dtype), max_pixels, overwrite)
    codec = codec_of(model, ("encoder",), loading)

    def job_of(source: Source) -> Job:
        jobs, refused = plan([source], place, ".safetensors", "", LATENTS)
        for _, error in refused:
            raise error
        return jobs[0]

    def encode(jobs: list[Job]) -> Iterator[Outcome]:
        return encode_jobs(jobs, codec, options, batch_size)

    if started is not None:
        started(codec)
    watcher = Watcher(names, PICTURES, PICTURE_TAGS)
    outcomes = limited(watch(watcher, job_of, encode, stop, interval), limit)
    for number, outcome in enumerate(outcomes, 1):
        if progress is not None:
            progress(outcome, number, number)
