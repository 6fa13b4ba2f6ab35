"""Export latents to files of another project, in bounded memory: part by part, written by threads.

::

    files, stores --parts--> latents --Format.write--> bytes --compare--> skipped, written, refused
                                |--> Unkept                        '--> the index, last
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from threading import Lock

from auravae_cli.errors import (
    AuraVaeError,
    LatentFileError,
    LatentMismatchError,
    OutputError,
    UsageError,
    reason_of,
)
from auravae_cli.exchange.exportable import (
    ExportBatch,
    count_rows,
    file_parts,
    stacked,
    store_parts,
)
from auravae_cli.exchange.formats.base import Choices, Exported, Format, Index, Network
from auravae_cli.exchange.picture_order import PictureOrder
from auravae_cli.exchange.registry import format_of
from auravae_cli.exchange.unkept import Unkept
from auravae_cli.files.atomic import atomic_file
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import open_regular, read_within
from auravae_cli.files.places import below, is_remote
from auravae_cli.files.storage import open_storage
from auravae_cli.latents.latent_file import LatentFile, LatentSpace
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.machine.progress import Progress, follow
from auravae_cli.operations.batches import Outcome, failed
from auravae_cli.operations.inputs import collect
from auravae_cli.operations.jobs import Names, listed, named_place
from auravae_cli.operations.names import none_found
from auravae_cli.operations.outputs import (
    holds,
    is_taken,
    refuse_itself,
    refuse_to_replace,
    why_not_there,
)
from auravae_cli.operations.suffixes import LATENTS
from auravae_cli.operations.taken_names import TakenNames
from auravae_cli.store.names import is_store

_WRITERS = 4  # threads, which mostly wait for the disk
_READY_BYTES = 256 << 20  # of latents waiting to be written
_BLOCK_BYTES = 1 << 20  # written at once


@dataclass(frozen=True)
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
    _locks: tuple[Lock, ...] = field(default_factory=lambda: tuple(Lock() for _ in range(64)))

    def run(self, parts: Iterable[ExportBatch | Outcome], losses: Unkept) -> Iterator[Outcome]:
        """Export everything; yield an outcome per file (or per latent without one).

        A bad latent or file never raises.
        """
        index = self.form.index() if self.form.index else None
        work = self._work(self._numbered(parts, losses))
        any_files, unwritten = False, 0
        try:
            for item, outcomes, files in work:
                yield from outcomes
                unwritten += files is None
                if index is not None and isinstance(item, _Numbered):
                    for file in files or ():
                        index.add(file, item.part.latents)
                        any_files = True
            if index is not None and any_files:
                yield from self._finish(index, unwritten)
        finally:
            if index is not None:
                index.close()

    def _work(
        self, items: Iterable[_Numbered | Outcome]
    ) -> Iterator[tuple[_Numbered | Outcome, list[Outcome], list[Exported] | None]]:
        """Yield each item with its outcomes and files, which threads write ahead."""
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
        check, names, number = _Checks(self.form, self.any_model), TakenNames(self.folder), 0
        for part in stacked(parts) if self.form.stacked else _singles(parts):
            if isinstance(part, Outcome):
                yield part
                continue
            try:
                check(part.latents)
                if not self.form.stacked:
                    part = _by_picture(part) if self.form.by_picture else part  # noqa: PLW2901
                    _refuse_repeat(part, names, self.form)
                if self.pictures is not None:
                    number, part = self.pictures.place(part)  # noqa: PLW2901
            except LatentFileError as error:
                yield failed(part.source, str(error))
                continue
            losses.add(part.latents)
            yield _Numbered(part, number)
            number += 1
        if self.pictures is not None:
            yield from self.pictures.missing()

    def _export(
        self, item: _Numbered | Outcome
    ) -> tuple[_Numbered | Outcome, list[Outcome], list[Exported] | None]:
        """Return the outcomes of a part, and its files; None if one could not be written."""
        if isinstance(item, Outcome):
            return item, [item], []
        part, outcomes, files = item.part, list[Outcome](), list[Exported]()
        assert self.form.write is not None  # `_choose` ensures it
        is_unwritten = False
        try:
            for file in self.form.write(part.latents, part.names, item.number, self.choices):
                rows = len(part.names)
                if self.form.collects:
                    outcomes.append(Outcome(part.source, "done", details={"latents": rows}))
                else:
                    outcomes.append(self._write(part.source, file, rows))
                files.append(file)
        except (AuraVaeError, MemoryError) as error:
            is_unwritten = isinstance(error, OutputError | MemoryError)
            outcomes.append(failed(part.source, reason_of(error)))
        except (ArithmeticError, ValueError) as error:
            # A label or a box that the format cannot hold.
            reason = f"{self.form.name} cannot hold what its header says: {error}"
            outcomes.append(failed(part.source, reason))
        return item, outcomes, None if is_unwritten else files

    def _write(self, source: str, file: Exported, rows: int) -> Outcome:
        """Write a file, unless it exists already. Raises OutputError."""
        path = below(self.folder, file.name)
        with self._locks[hash(path) % len(self._locks)]:
            if is_taken(path):
                is_done = not self.overwrite and holds(path, file.pieces())
                if not is_done and self.form.merge is not None:
                    file = self._with_others(path, file, self.form.merge)
                    is_done = not self.overwrite and holds(path, file.pieces())
                if is_done:
                    return Outcome(source, "skipped", str(path), "up to date")
                if self.form.merge is None:
                    refuse_to_replace(path, self.overwrite)
                refuse_itself(path, Path(source))
            with atomic_file(path) as output:
                for block in _joined(file.pieces()):
                    output.write(block)
            return Outcome(source, "done", str(path), details={"latents": rows})

    def _with_others(
        self, path: Path, file: Exported, merge: Callable[[bytes, bytes, bool], bytes]
    ) -> Exported:
        """Return a file with what else an existing one holds, in a format that shares files.

        Raises OutputError if it would replace something.
        """
        try:
            with open_regular(path) as existing:
                content = read_within(existing, FILE_BYTES, LatentFileError)
            merged = merge(content, b"".join(file.pieces()), self.overwrite)
        except LatentFileError:
            refuse_to_replace(path, self.overwrite)
            return file
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error
        return Exported(file.name, lambda: [merged])

    def _finish(self, index: Index, unwritten: int) -> Iterator[Outcome]:
        if unwritten:  # otherwise the next run would find an incomplete index, and keep it
            reason = f"not written, since it lists all files and {unwritten} failed: run this again"
            yield failed(index.name, reason)
            return
        for file in index.files():
            try:
                yield self._write(index.name, file, 0)
            except AuraVaeError as error:
                yield failed(file.name, str(error))
                return


@dataclass(frozen=True)
class _Numbered:
    part: ExportBatch
    number: int


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


def _refuse_repeat(part: ExportBatch, names: TakenNames, form: Format) -> None:
    """Raise LatentFileError for a second latent of the same name, whose file would replace the first one's."""
    name = part.names[0]
    place = form.folder(part.latents, name) + name
    if not names.take(f"{place}_{form.apart(part.latents)}"):
        raise LatentFileError(f"another latent is called {name!r}, too: name the folder above them")


def _by_picture(part: ExportBatch) -> ExportBatch:
    """Return a latent under its picture's name, without the tag of a flip."""
    tag = f".{part.latents.records[0].orientation}"
    return replace(part, names=(part.names[0].removesuffix(tag),)) if tag != ".e" else part


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Join small pieces, since each write is a system call. A block is valid until the next one is requested."""
    block = memoryview(bytearray(_BLOCK_BYTES))  # one, since new memory costs as much as a copy
    size = 0
    for piece in pieces:
        content = memoryview(piece)
        length = content.nbytes
        if size + length > _BLOCK_BYTES:
            yield block[:size]
            size = 0
        if length >= _BLOCK_BYTES:
            yield content
        elif length:
            block[size : size + length] = content.cast("B")
            size += length
    yield block[:size]


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
    exporter = Exporter(form, Path(place), choices, overwrite, any_model, order)
    return Exports(follow(exporter.run(parts, unkept), total, progress), unkept)


def _choose(name: str, flipped: bool, arch: str | None, for_shift: bool) -> tuple[Format, Choices]:
    form = format_of(name)
    if form.write is None:
        raise UsageError(f"{name} is only imported: {form.advice}")
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
