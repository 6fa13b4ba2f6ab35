"""Export latents to files of another project, in bounded memory: part by part, written by threads.

::

    files, stores --parts--> latents --Format.write--> bytes --compare--> skipped, written, refused
                                |--> Unkept                        '--> the index, last
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from auravae_cli.errors import (
    AuraVaeError,
    ExistingOutputError,
    LatentFileError,
    LatentMismatchError,
    OutputError,
    UsageError,
    reason_of,
)
from auravae_cli.exchange.export_files import EarlierFiles, FileWriter
from auravae_cli.exchange.export_names import ExportNames
from auravae_cli.exchange.exportable import (
    ExportBatch,
    count_rows,
    file_parts,
    stacked,
    store_parts,
)
from auravae_cli.exchange.formats.base import Choices, Exported, Format, Index, Network
from auravae_cli.exchange.picture_order import PictureOrder
from auravae_cli.exchange.registry import format_of, require_library
from auravae_cli.exchange.unkept import Unkept
from auravae_cli.files.places import below, is_remote
from auravae_cli.files.storage import open_storage
from auravae_cli.latents.latent_file import LatentFile, LatentSpace
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.machine.progress import Progress, follow
from auravae_cli.operations.batches import Outcome, failed
from auravae_cli.operations.inputs import collect
from auravae_cli.operations.jobs import Names, listed, named_place
from auravae_cli.operations.kept_inputs import KeptInputs
from auravae_cli.operations.names import none_found
from auravae_cli.operations.outputs import is_taken, why_not_there
from auravae_cli.operations.suffixes import LATENTS
from auravae_cli.store.names import is_store

_WRITERS = 4  # threads, which mostly wait for the disk
_READY_BYTES = 256 << 20  # of latents waiting to be written


@dataclass
class Exporter:
    """Where and how to export. ``any_model`` allows latents of several models.

    ``pictures``, if given, number the latents in their own order.
    """

    form: Format
    folder: Path
    choices: Choices = Choices()
    overwrite: bool = False
    any_model: bool = False
    pictures: PictureOrder | None = None
    inputs: KeptInputs = KeptInputs()

    def __post_init__(self) -> None:
        # One for all threads, since its locks keep two sizes of a picture from one file at once.
        self._writer = FileWriter(self.folder, self.overwrite, self.form.merge, self.inputs)

    def run(self, parts: Iterable[ExportBatch | Outcome], losses: Unkept) -> Iterator[Outcome]:
        """Export everything; yield an outcome per file (or per latent without one).

        A bad latent or file never raises.
        """
        index = self.form.index() if self.form.index else None
        tally, earlier = _Tally(self._is_taken(index)), EarlierFiles(self.folder)
        try:
            for made in self._work(self._numbered(parts, losses)):
                yield from tally.add(made)
                for name in made.names if self.form.is_numbered else ():
                    earlier.add(name)
                if index is not None and isinstance(made.item, _Numbered):
                    for file in made.files:
                        index.add(file, made.item.part.latents)
            if index is not None and tally.indexed:
                yield from tally.settled(list(self._finish(index, tally)))
        finally:
            if index is not None:
                index.close()
        losses.earlier_files = earlier.count()

    def _is_taken(self, index: Index | None) -> bool:
        """Return whether something is in the place of the one file that holds all latents."""
        if not self.form.collects or index is None:
            return False
        return is_taken(below(self.folder, index.name, to_write=False))

    def _work(self, items: Iterable[_Numbered | Outcome]) -> Iterator[_Made]:
        """Yield what each item made; threads write ahead."""
        if self.form.collects:  # nothing is written yet
            return map(self._export, items)
        return prefetch(
            items,
            self._export,
            workers=_WRITERS,
            cost=lambda item: 0 if isinstance(item, Outcome) else item.part.latents.values.nbytes,
            budget=_READY_BYTES,
        )

    def _numbered(
        self, parts: Iterable[ExportBatch | Outcome], losses: Unkept
    ) -> Iterator[_Numbered | Outcome]:
        """Yield checked parts in the form the format takes, with their numbers; outcomes for the others."""
        check, names = _Checks(self.form, self.any_model), ExportNames(self.form, self.folder)
        number = 0
        for part in stacked(parts) if self.form.stacked else _singles(parts):
            if isinstance(part, Outcome):
                yield part
                continue
            try:
                check(part.latents)
                if not self.form.stacked:
                    part = names.place(part)  # noqa: PLW2901
                if self.pictures is not None:
                    number, part = self.pictures.place(part)  # noqa: PLW2901
            except LatentFileError as error:
                yield failed(part.source, str(error))
                continue
            losses.add(part.latents, part.names)
            yield _Numbered(part, number)
            number += 1
        if self.pictures is not None:
            yield from self.pictures.missing()

    def _export(self, item: _Numbered | Outcome) -> _Made:
        """Write the files of a part."""
        made = _Made(item)
        if isinstance(item, Outcome):
            made.outcomes.append(item)
            return made
        part, rows = item.part, len(item.part.names)
        assert self.form.write is not None  # `_choose` ensures it
        try:
            for file in self.form.write(part.latents, part.names, item.number, self.choices):
                made.names.append(file.name)
                if self.form.collects:
                    made.outcomes.append(Outcome(part.source, "done", details={"latents": rows}))
                else:
                    made.outcomes.append(self._writer.write(part.source, file, rows))
                made.files.append(file)
        except (AuraVaeError, MemoryError) as error:
            if isinstance(error, OutputError | MemoryError):
                made.fault = error
                made.files.clear()
            made.outcomes.append(failed(part.source, reason_of(error)))
        except (ArithmeticError, ValueError) as error:
            # A label or a box that the format cannot hold.
            reason = f"{self.form.name} cannot hold what its header says: {error}"
            made.outcomes.append(failed(part.source, reason))
        return made

    def _finish(self, index: Index, tally: _Tally) -> Iterator[Outcome]:
        if tally.unwritten:  # otherwise the next run would find an incomplete index, and keep it
            advice = "run this again"
            if tally.existing:
                advice = "replace what exists with --overwrite, or name another folder with -o"
            reason = f"not written, since it lists all files and {tally.unwritten} failed: {advice}"
            yield failed(index.name, reason)
            return
        for file in index.files():
            try:
                yield self._writer.write(index.name, file, 0)
            except AuraVaeError as error:
                yield failed(file.name, str(error))
                return


@dataclass(frozen=True)
class _Numbered:
    part: ExportBatch
    number: int


@dataclass
class _Made:
    """What became of a part: outcomes, the names of its files, those that exist now, and what prevented one."""

    item: _Numbered | Outcome
    outcomes: list[Outcome] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    files: list[Exported] = field(default_factory=list)
    fault: Exception | None = None


@dataclass
class _Tally:
    """Counts for the index. If it ``decides`` what is done, outcomes wait for it."""

    decides: bool
    waiting: list[Outcome] = field(default_factory=list)
    indexed: int = 0
    unwritten: int = 0
    existing: int = 0

    def add(self, made: _Made) -> list[Outcome]:
        """Count a part; return the outcomes that are known."""
        self.indexed += len(made.files)
        self.unwritten += made.fault is not None
        self.existing += isinstance(made.fault, ExistingOutputError)
        if not (self.decides and made.files):
            return made.outcomes
        self.waiting += made.outcomes
        return []

    def settled(self, ends: list[Outcome]) -> Iterator[Outcome]:
        """Yield the outcomes that waited, as those of the index turned out, and these."""
        for one in self.waiting:
            yield replace(one, status=ends[0].status, reason=ends[0].reason)
        yield from ends


@dataclass
class _Checks:
    """What all latents of an export must share: the first one's space, and its size if it matters."""

    form: Format
    any_model: bool
    space: LatentSpace | None = None
    side: int | None = None

    def __call__(self, latents: LatentFile) -> None:
        """Raise LatentFileError if a latent does not match the first."""
        space, (_, height, width) = latents.space, latents.values.shape[-3:]
        self.space = self.space or space
        if not self.any_model and (space.weights_sha256, space.irreps) != (
            self.space.weights_sha256,
            self.space.irreps,
        ):
            raise LatentMismatchError(
                f"latent of model {space.model!r} ({space.weights_sha256[:12]}, {space.irreps}), but "
                f"the first was of {self.space.model!r} ({self.space.weights_sha256[:12]}, "
                f"{self.space.irreps}): export them separately, or together with --any-model"
            )
        if not self.form.squares:
            return
        if height != width:
            raise LatentFileError(
                f"{height} x {width} cells: {self.form.name} takes squares; encode with --center-crop"
            )
        self.side = self.side or height
        if height != self.side:
            raise LatentFileError(
                f"{height} x {width} cells, but the first had {self.side} x {self.side}: "
                f"{self.form.name} takes one size; encode with --center-crop"
            )


def _singles(parts: Iterable[ExportBatch | Outcome]) -> Iterator[ExportBatch | Outcome]:
    for part in parts:
        if isinstance(part, ExportBatch):
            yield from part.rows()
        else:
            yield part


@dataclass(frozen=True)
class Exports:
    """The result of an export: an outcome per file, and what its format has no place for."""

    outcomes: list[Outcome]
    unkept: Unkept


def export_latents(
    latents: Names,
    output: str | Path,
    to: str,
    *,
    flipped: bool = True,
    arch: str | None = None,
    for_shift: bool = False,
    pictures: str | Path | None = None,
    any_model: bool = False,
    overwrite: bool = False,
    progress: Progress[Outcome] | None = None,
) -> Exports:
    """Write latents as another project keeps them, as ``auravae export`` does.

    Args:
        latents: stores (folders or URLs), latent files and shards, folders, patterns.
        output: a folder on this machine.
        to: the name of a format: see docs/exchange.md.
        flipped: fill the format's place for a mirrored copy, by the group action, if it has one.
        arch: the network that the files are for, where names or keys say it.
        for_shift: fold in the inverse of what the network's trainer computes, ``(z - shift) * scale``, so
            that it gets these values.
        pictures: a folder of the pictures, whose order numbers the latents (edm2, for REPA).
        any_model: take latents of several models together.
        overwrite: replace outputs that exist. Finished ones are skipped in any case.
        progress: called with each outcome, the number so far, and about how many there will be.

    Raises:
        UsageError: no latent is there, or the format does not go with the other arguments.
        StoreError: a store cannot be reached.
    """
    place = named_place(output)
    if is_remote(place):
        raise UsageError(f"{place}: expected a folder here; copy it there afterwards", "output")
    if reason := why_not_there(Path(place) / "result"):
        raise UsageError(reason, "output")
    form, choices = _choose(to, flipped, arch, for_shift)
    if pictures is not None and not form.paired:
        raise UsageError(f"{to} does not number its files", "pictures")
    order = None if pictures is None else PictureOrder.read(Path(pictures))
    names = listed(latents)
    stores = [open_storage(name) for name in names if is_store(name)]
    files = collect([name for name in names if not is_store(name)], LATENTS)
    if not stores and not files:
        raise none_found(names, LATENTS, "latents: stores, files, folders, patterns")
    total = sum(map(count_rows, stores)) + len(files)
    parts, unkept = chain(*map(store_parts, stores), file_parts(files)), Unkept(form, choices)
    inputs = KeptInputs.of(files)
    exporter = Exporter(form, Path(place), choices, overwrite, any_model, order, inputs)
    return Exports(follow(exporter.run(parts, unkept), total, progress), unkept)


def _choose(name: str, flipped: bool, arch: str | None, for_shift: bool) -> tuple[Format, Choices]:
    form = format_of(name)
    if form.write is None:
        raise UsageError(f"{name} is only imported: {form.advice}")
    require_library(name, form.write_needs)
    if arch is not None and not form.archs:
        raise UsageError(f"{name} names no network", "arch")
    if arch is not None and arch not in form.archs and not form.any_arch:
        raise UsageError(f"{arch!r}: expected one of {', '.join(form.archs)}", "arch")
    if form.needs_flipped and not flipped:
        raise UsageError(
            f"readers of {name} take {form.flipped!r} at random: it must be there", "no_flipped"
        )
    arch = arch or next(iter(form.archs), "")
    network = form.archs.get(arch, Network())
    if for_shift and not network.shift:
        raise UsageError(
            f"the trainer shifts nothing that it reads for {arch or name}", "for_shift"
        )
    return form, Choices(flipped, arch, network if for_shift else None)
