"""Measure models on pictures, one picture at a time; resumes by content.

::

    sources --hashed--> survey --which lack numbers?--> decoded by threads --each model--> rows

Flips and sweeps are measured on the pictures with the smallest sha256: a sample that neither order
nor names bias, and that the next run takes again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeAlias

from auravae_cli.defaults import MAX_PIXELS
from auravae_cli.errors import AuraVaeError, reason_of
from auravae_cli.evaluation.legibility import TextReader, text_errors
from auravae_cli.evaluation.measure import (
    Measured,
    MeasureOptions,
    Subject,
    how_computed,
    measure,
    runs_each,
)
from auravae_cli.evaluation.reconstructions import Reconstructions
from auravae_cli.evaluation.results import FORMAT_VERSION, Results, identity
from auravae_cli.evaluation.rfid import Extract
from auravae_cli.images.read import Pixels, count_pixels, read_image, read_size
from auravae_cli.latents.latent_file import space_to_json
from auravae_cli.machine.memory import BYTES_PER_PIXEL
from auravae_cli.machine.prefetch import DECODED_BYTES, prefetch
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import group_equal, try_batch
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.sample import Sample
from auravae_cli.operations.samples import ShardReader
from auravae_cli.operations.timed_batches import LOOKED_AT, Ahead
from auravae_cli.store.ledger import Failure

SWEPT = ("noise", "storage", "space")  # what is measured on the sample for sweeps


class Perceptual(Protocol):
    """The interface of LPIPS; ``digest`` identifies its weights."""

    digest: str

    def distances(self, original: Pixels, reconstructions: Sequence[Pixels]) -> list[float | None]:
        """Return the distance of each uint8 reconstruction [H, W, 3]; None if it is too small."""


@dataclass(frozen=True)
class EvalOptions:
    """What to measure, and on how many pictures; None means all of them."""

    measure: MeasureOptions = MeasureOptions()
    flips: int | None = None
    sweeps: int | None = None
    batch_size: int | None = None
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class PictureFailure:
    """A picture that could not be measured by one model, or, if ``model`` is None, at all."""

    picture: str
    model: str | None
    reason: str


# A row with its model's label, or a failure.
Step: TypeAlias = tuple[str, dict[str, Any]] | PictureFailure


@dataclass(frozen=True)
class Survey:
    """The contents of the sources: the sha256 of every picture by its name, what is unreadable, and the names
    in each shard."""

    pictures: dict[str, str]
    failures: tuple[PictureFailure, ...]
    shards: tuple[tuple[str, ...], ...] = ()
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # of the first pictures

    def chosen(self, number: int | None) -> frozenset[str]:
        """Return the sha256 of the pictures in a sample of ``number`` (None: all)."""
        return frozenset(sorted(set(self.pictures.values()))[:number])


@dataclass
class Evaluation:
    """A run: models by label (or reconstructions made elsewhere), sources, and the results.

    ``rows`` maps a label to the rows of its pictures, in the order of the pictures' names.
    """

    codecs: Mapping[str, Codec | Reconstructions]
    shards: Sequence[InputShard]
    options: EvalOptions
    results: Results
    lpips: Perceptual | None = None
    inception: Extract | None = None
    reader: TextReader | None = None
    failures: list[PictureFailure] = field(default_factory=list)

    def survey(self) -> Survey:
        """Read all sources once, to find all pictures. Raises StoreError."""
        pictures: dict[str, str] = {}
        failures, shards, sizes = [], [], dict[str, tuple[int, int]]()
        for shard in self.shards:
            before = len(pictures)
            for item in ShardReader(shard):
                if isinstance(item, Sample):
                    name = self._name(shard, item)
                    pictures[name] = hashlib.sha256(item.content).hexdigest()
                    if len(pictures) <= LOOKED_AT:
                        with suppress(AuraVaeError):  # measuring it reports the fault
                            sizes[name] = read_size(
                                item.content, max_pixels=self.options.max_pixels
                            )
                elif isinstance(item, Failure):
                    failures.append(PictureFailure(item.key or shard.name, None, item.reason))
            shards.append(tuple(islice(pictures, before, None)))
        return Survey(pictures, tuple(failures), tuple(shards), sizes)

    def run(self, survey: Survey) -> Iterator[Step]:
        """Measure what has no numbers yet; yield each row with its model's label, or a failure.

        Raises:
            ModelError: a model cannot run.
            OutputError: a row cannot be written.
        """
        flips, sweeps = survey.chosen(self.options.flips), survey.chosen(self.options.sweeps)
        yield from self.unreadable(survey)
        yield from self.measure(self.lacking(survey), flips, sweeps, self.shards)

    def lacking(self, survey: Survey) -> dict[str, list[str]]:
        """Return the pictures that have no numbers yet, with the labels of the models."""
        flips, sweeps = survey.chosen(self.options.flips), survey.chosen(self.options.sweeps)
        return {
            name: labels
            for name, digest in survey.pictures.items()
            if (labels := [x for x in self.codecs if not self._find(x, digest, flips, sweeps)])
        }

    def ahead(self, survey: Survey) -> list[Ahead]:
        """Return the work of each model on the pictures that have no numbers yet."""
        flips, sweeps = survey.chosen(self.options.flips), survey.chosen(self.options.sweeps)
        lacking, found = self.lacking(survey), list[Ahead]()
        for label, codec in self.codecs.items():
            names = [name for name, labels in lacking.items() if label in labels]
            digests = [survey.pictures[name] for name in names]
            if isinstance(codec, Codec) and names:
                parts = runs_each(
                    sum(digest in flips for digest in digests) / len(names),
                    sum(digest in sweeps for digest in digests) / len(names),
                    len(self.options.measure.noise),
                )
                prepared, factor = self.options.measure.preparation, codec.space.downsampling_factor
                padded = tuple(
                    prepared.padded_size(*survey.sizes[name], factor)
                    for name in names
                    if name in survey.sizes
                )
                found.append(Ahead("roundtrip", parts, codec, padded, len(names)))
        return found

    def unreadable(self, survey: Survey) -> Iterator[PictureFailure]:
        """Yield, and keep, what the sources have that cannot be read."""
        for bad in survey.failures:
            yield self._fail(bad)

    def measure(
        self,
        lacking: Mapping[str, list[str]],
        flips: frozenset[str],
        sweeps: frozenset[str],
        shards: Sequence[InputShard],
    ) -> Iterator[Step]:
        """Measure the pictures of these names in these shards by these models; see `run`."""
        for batch in self._batches(lacking, flips, sweeps, shards):
            subjects = []
            for item in batch:
                if isinstance(item, PictureFailure):
                    yield self._fail(item)
                else:
                    subjects.append(item)
            if subjects:
                yield from self._measure(lacking, subjects)

    def keep(self, step: Step) -> Step:
        """Keep what was measured elsewhere, and return it. Raises OutputError."""
        if isinstance(step, PictureFailure):
            return self._fail(step)
        label, row = step
        self.results.add(self.identity(label, row["sha256"]), row)
        return step

    def pending(self, survey: Survey) -> int:
        """Return how many rows remain to be measured."""
        flips, sweeps = survey.chosen(self.options.flips), survey.chosen(self.options.sweeps)
        return sum(
            not self._find(label, digest, flips, sweeps)
            for digest in survey.pictures.values()
            for label in self.codecs
        )

    def rows(self, label: str, survey: Survey) -> list[dict[str, Any]]:
        """Return the rows of a model in the order of the pictures' names; flips and sweeps of the sample only."""
        flips, sweeps = survey.chosen(self.options.flips), survey.chosen(self.options.sweeps)
        rows = []
        for name, digest in sorted(survey.pictures.items()):
            row = self._find(label, digest, flips, sweeps)
            if row:
                mine: dict[str, Any] = {"picture": name, "model": label}
                mine |= {} if digest in flips else {"flips": None}
                mine |= {} if digest in sweeps else dict.fromkeys(SWEPT)
                rows.append({**row, **mine})
        return rows

    def subjects(self, names: Collection[str]) -> Iterator[Subject | PictureFailure]:
        """Yield the pictures of these names again, decoded."""
        nothing: frozenset[str] = frozenset()
        for batch in self._batches(names, nothing, nothing, self.shards):
            yield from batch

    def _find(
        self, label: str, digest: str, flips: frozenset[str], sweeps: frozenset[str]
    ) -> dict[str, Any] | None:
        wanted = set[str]()
        if isinstance(self.codecs[label], Codec):
            wanted |= {"flips"} if digest in flips else set()
            wanted |= set(SWEPT) if digest in sweeps else set()
        wanted |= {"inception"} if self.inception else set()
        return self.results.find(self.identity(label, digest), frozenset(wanted))

    def identity(self, label: str, digest: str) -> str:
        """Return what identifies the numbers of a picture, given by its sha256, and a model."""
        model, options = self.codecs[label], self.options.measure
        if isinstance(model, Reconstructions):
            facts = model.facts(options)
        else:
            facts = {**space_to_json(model.space), **how_computed(model, options)}
            facts |= {"noise": options.noise, "seed": options.seed}
        lpips = self.lpips and self.lpips.digest
        facts |= {"version": FORMAT_VERSION, "lpips": lpips}
        facts |= {"text": self.reader.name} if self.reader else {}
        return identity(digest, facts)

    def _batches(
        self,
        names: Collection[str],
        flips: frozenset[str],
        sweeps: frozenset[str],
        shards: Sequence[InputShard],
    ) -> Iterator[list[Subject | PictureFailure]]:
        """Yield the pictures of these names, grouped by size."""
        limit, background = self.options.max_pixels, self.options.measure.preparation.background

        def load(sample: tuple[str, Sample]) -> Subject | PictureFailure:
            name, content = sample[0], sample[1].content
            try:
                image = read_image(content, background=background, max_pixels=limit)
                return Subject(name, image, image.sha256 in flips, image.sha256 in sweeps)
            except (AuraVaeError, MemoryError) as error:
                return PictureFailure(name, None, reason_of(error))

        samples = (
            (name, item)
            for shard in shards
            for item in ShardReader(shard)
            if isinstance(item, Sample) and (name := self._name(shard, item)) in names
        )
        loaded = prefetch(samples, load, cost=_decoded_size, budget=DECODED_BYTES)
        batch_size = self.options.batch_size or max(
            (c.batch_size for c in self.codecs.values() if isinstance(c, Codec)), default=1
        )
        return group_equal(
            loaded,
            lambda item: (
                None if isinstance(item, PictureFailure) else (item.image.pixels.shape, batch_size)
            ),
            lambda item: 0 if isinstance(item, PictureFailure) else item.image.pixels.nbytes,
            DECODED_BYTES,
        )

    def _measure(self, lacking: Mapping[str, list[str]], subjects: list[Subject]) -> Iterator[Step]:
        """Yield the rows of pictures of one size; if a batch fails, each picture alone."""
        measured: list[dict[str, Measured | PictureFailure]] = [{} for _ in subjects]
        for label in self.codecs:
            mine = [i for i, subject in enumerate(subjects) if label in lacking[subject.name]]
            if not mine:
                continue
            found: list[Measured | PictureFailure] = try_batch(
                [subjects[i] for i in mine],
                self._measuring(label),
                partial(_not_measured, label),
            )
            for i, one in zip(mine, found, strict=True):
                measured[i][label] = one
        for by_label in measured:
            self._compare([one for one in by_label.values() if isinstance(one, Measured)])
            for label, one in by_label.items():
                if isinstance(one, PictureFailure):
                    yield self._fail(one)
                    continue
                yield self.keep((label, {**one.row, "model": label}))

    def _measuring(self, label: str) -> Callable[[Sequence[Subject]], list[Measured]]:
        model, options = self.codecs[label], self.options.measure
        if isinstance(model, Reconstructions):
            return partial(model.measure, options=options)
        return partial(measure, model, options=options)

    def _compare(self, found: Sequence[Measured]) -> None:
        """Compute the metrics that need their own network, once for the original and all models."""
        if not found:
            return
        original = found[0].original
        if self.lpips:
            distances = self.lpips.distances(original, [m.reconstruction for m in found])
            for one, distance in zip(found, distances, strict=True):
                one.row["lpips"] = distance
        if self.reader:
            errors = text_errors(self.reader, original, [m.reconstruction for m in found])
            for one, error in zip(found, errors, strict=True):
                one.row["text_error"] = error
        if self.inception:
            reference = self.inception(original)
            for one in found:
                one.row["inception"] = [reference, self.inception(one.reconstruction)]

    def _fail(self, bad: PictureFailure) -> PictureFailure:
        self.failures.append(bad)
        return bad

    def _name(self, shard: InputShard, sample: Sample) -> str:
        """Return a picture's name, with its tar's if there are several."""
        tars = sum(s.is_tar for s in self.shards) > 1
        return f"{shard.name}/{sample.source}" if shard.is_tar and tars else sample.source


def _not_measured(label: str, subject: Subject, error: Exception) -> PictureFailure:
    return PictureFailure(subject.name, label, reason_of(error))


def _decoded_size(sample: tuple[str, Sample]) -> int:
    return BYTES_PER_PIXEL * count_pixels(sample[1].content)
