"""Latents => files of another project. Bounded memory: a part at a time, written by threads.

::

    files, stores --parts--> latents --Format.write--> bytes --compare--> skipped, written, refused
                                |--> Unkept                        '--> the index, last
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.errors import (
    AuraVaeError,
    LatentFileError,
    LatentMismatchError,
    OutputError,
    reason_of,
)
from auravae_cli.exchange.exportable import ExportBatch, stacked
from auravae_cli.exchange.formats.base import Choices, Exported, Format, Index, original_size
from auravae_cli.exchange.unkept import Unkept
from auravae_cli.files.atomic import atomic_file
from auravae_cli.files.places import below
from auravae_cli.latents.latent_file import LatentFile, LatentSpace
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.operations.batches import Outcome, failed
from auravae_cli.operations.outputs import holds, is_taken, refuse_itself, refuse_to_replace
from auravae_cli.operations.taken_names import TakenNames

_WRITERS = 4  # threads, each of which mostly waits for the disk
_READY_BYTES = 256 << 20  # of latents that wait to be written
_BLOCK_BYTES = 1 << 20  # to write at once


@dataclass(frozen=True)
class Exporter:
    """Where an export goes, and how. ``any_model`` takes latents of several models, too."""

    form: Format
    folder: Path
    choices: Choices = Choices()
    overwrite: bool = False
    any_model: bool = False

    def run(self, parts: Iterable[ExportBatch | Outcome], losses: Unkept) -> Iterator[Outcome]:
        """Export everything; an outcome for each file (or for each latent that has none).

        Raises nothing that a single latent or file is to blame for.
        """
        index = self.form.index() if self.form.index else None
        work = prefetch(
            self._numbered(parts, losses),
            self._export,
            workers=_WRITERS,
            cost=lambda item: 0 if isinstance(item, Outcome) else item.part.latents.values.nbytes,
            budget=_READY_BYTES,
        )
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
                yield self._finish(index, unwritten)
        finally:
            if index is not None:
                index.close()

    def _numbered(
        self, parts: Iterable[ExportBatch | Outcome], losses: Unkept
    ) -> Iterator[_Numbered | Outcome]:
        """Parts as the format takes them, checked, with their numbers; outcomes for the others."""
        check, names, number = _Checks(self.form, self.any_model), TakenNames(self.folder), 0
        for part in stacked(parts) if self.form.stacked else _singles(parts):
            if isinstance(part, Outcome):
                yield part
                continue
            try:
                check(part.latents)
                if not self.form.stacked:
                    _refuse_repeat(part, names, self.form)
            except LatentFileError as error:
                yield failed(part.source, str(error))
                continue
            losses.add(part.latents)
            yield _Numbered(part, number)
            number += 1

    def _export(
        self, item: _Numbered | Outcome
    ) -> tuple[_Numbered | Outcome, list[Outcome], list[Exported] | None]:
        """The outcomes of a part, and its files; None where one was not put in its place."""
        if isinstance(item, Outcome):
            return item, [item], []
        part, outcomes, files = item.part, list[Outcome](), list[Exported]()
        is_unwritten = False
        try:
            for file in self.form.write(part.latents, part.names, item.number, self.choices):
                outcomes.append(self._write(part.source, file, len(part.names)))
                files.append(file)
        except (AuraVaeError, MemoryError) as error:
            is_unwritten = isinstance(error, OutputError | MemoryError)
            outcomes.append(failed(part.source, reason_of(error)))
        except (ArithmeticError, ValueError) as error:
            # A label or a box beyond what the format holds.
            reason = f"{self.form.name} cannot hold what its header says: {error}"
            outcomes.append(failed(part.source, reason))
        return item, outcomes, None if is_unwritten else files

    def _write(self, source: str, file: Exported, rows: int) -> Outcome:
        """Put a file in its place, unless it stands there. Raises OutputError."""
        path = below(self.folder, file.name)
        if is_taken(path):
            if not self.overwrite and holds(path, file.pieces()):
                return Outcome(source, "skipped", str(path), "up to date")
            refuse_to_replace(path, self.overwrite)
            refuse_itself(path, Path(source))
        with atomic_file(path) as output:
            for block in _joined(file.pieces()):
                output.write(block)
        return Outcome(source, "done", str(path), details={"latents": rows})

    def _finish(self, index: Index, unwritten: int) -> Outcome:
        if unwritten:  # else the next run would find another index in its place, and keep it
            reason = f"not written, as it tells of all files and {unwritten} failed: run this again"
            return failed(index.name, reason)
        try:
            return self._write(index.name, Exported(index.name, index.pieces), 0)
        except AuraVaeError as error:
            return failed(index.name, str(error))


@dataclass(frozen=True)
class _Numbered:
    part: ExportBatch
    number: int


@dataclass
class _Checks:
    """What all latents of an export must share: the first one's space, and size where it matters."""

    form: Format
    any_model: bool
    space: LatentSpace | None = None
    side: int | None = None

    def __call__(self, latents: LatentFile) -> None:
        """Raise LatentFileError where a latent does not go with the first."""
        space, (_, height, width) = latents.space, latents.values.shape[-3:]
        self.space = self.space or space
        if not self.any_model and (space.weights_sha256, space.irreps) != (
            self.space.weights_sha256,
            self.space.irreps,
        ):
            raise LatentMismatchError(
                f"latent of model {space.model!r} ({space.weights_sha256[:12]}, {space.irreps}), but "
                f"the first was of {self.space.model!r} ({self.space.weights_sha256[:12]}, "
                f"{self.space.irreps}): export them apart, or go on regardless with --any-model"
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
    """Raise LatentFileError for the second latent of a place: its file would replace the first one's."""
    name = part.names[0]
    place = form.folder(part.latents, name) + name
    size = f"_{original_size(part.latents)}" if form.size_in_name else ""
    if not names.take(place + size):
        raise LatentFileError(f"another latent is called {name!r}, too: name the folder above them")


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The pieces, small ones together, since each write is a call of the system."""
    waiting: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        length = memoryview(piece).nbytes
        if length >= _BLOCK_BYTES:
            yield b"".join(waiting)
            yield piece  # before the next one is asked for
            waiting, size = [], 0
            continue
        waiting.append(bytes(piece))
        size += length
        if size >= _BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)
