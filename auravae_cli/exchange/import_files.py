"""Import files of another project to one latent file per latent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from auravae_cli.errors import AuraVaeError, LatentFileError, UsageError, reason_of
from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.formats.base import Foreign, Format, Found
from auravae_cli.exchange.registry import format_of
from auravae_cli.files.atomic import atomic_file
from auravae_cli.files.kinds import LATENT, kind_of_file
from auravae_cli.files.mapping import read_or_map
from auravae_cli.files.places import below, is_remote, safe_name
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.latents.latent_file import LatentFile, read_latents
from auravae_cli.machine.prefetch import prefetch
from auravae_cli.machine.progress import Progress, follow
from auravae_cli.model.latent_space import read_space
from auravae_cli.operations.batches import Outcome, failed
from auravae_cli.operations.inputs import Source, collect
from auravae_cli.operations.jobs import Names, listed, named_place
from auravae_cli.operations.kept_inputs import KeptInputs
from auravae_cli.operations.names import none_found
from auravae_cli.operations.outputs import (
    holds,
    is_taken,
    refuse_to_replace,
    why_not_there,
)
from auravae_cli.operations.taken_names import TakenNames

_WRITERS = 4  # threads, which mostly wait for the disk
_READY_BYTES = 256 << 20  # of latents waiting to be written


@dataclass
class Importer:
    """Imports files; afterwards ``ignored`` counts what was not imported."""

    form: Format
    adopt: LatentImporter
    folder: Path
    overwrite: bool = False
    inputs: KeptInputs = KeptInputs()
    ignored: Counter[str] = field(default_factory=Counter)

    def run(self, sources: Iterable[Source]) -> Iterator[Outcome]:
        """Import everything; yield an outcome per latent, and per file without one."""
        return prefetch(
            self._named(sources),
            self._write,
            workers=_WRITERS,
            cost=lambda item: 0 if isinstance(item, Outcome) else item.found.values.nbytes,
            budget=_READY_BYTES,
        )

    def _named(self, sources: Iterable[Source]) -> Iterator[_Taken | Outcome]:
        """Yield every latent with a unique name."""
        names = TakenNames(self.folder)
        for source in sources:
            count = 0
            try:
                file = open_foreign(*split(source))
                for found in self.form.find(file):
                    count += 1
                    self.ignored.update(found.ignored)
                    if found.is_copy:
                        self.ignored["flipped copy"] += 1
                        yield Outcome(source.name, "skipped", None, "the flipped copy of another")
                        continue
                    name = wanted = safe_name(found.name)
                    if not names.take(name):
                        name = safe_name(name_by_file(file.name, self.form, count))
                        if not names.take(name):
                            reason = f"another latent is called {wanted!r}, too: name the folder above them"
                            yield failed(source.name, reason)
                            continue
                    many = self.form.holds_many(source.name)
                    label = f"{source.name}[{found.name}]" if many else source.name
                    yield _Taken(source, label, found, f"{name}.safetensors")
                if not count:
                    yield failed(source.name, "no latent in it")
            except (AuraVaeError, MemoryError) as error:
                yield failed(source.name, why_not_read(source, self.form, error))

    def _write(self, item: _Taken | Outcome) -> Outcome:
        if isinstance(item, Outcome):
            return item
        output = None
        try:
            output = below(self.folder, item.name)
            return self._put(item, output, self.adopt(item.found))
        except (AuraVaeError, MemoryError) as error:
            place = None if output is None else str(output)
            return failed(item.label, reason_of(error), place)

    def _put(self, item: _Taken, output: Path, latent: LatentFile) -> Outcome:
        pieces = [latent.header(), latent.values.tobytes()]
        if is_taken(output):
            if not self.overwrite and holds(output, pieces):
                return Outcome(item.label, "skipped", str(output), "up to date")
            refuse_to_replace(output, self.overwrite)
            self.inputs.refuse(output)
        with atomic_file(output) as file:
            file.write(b"".join(pieces))
        details = {"model": latent.space.model, "shape": list(latent.values.shape)}
        return Outcome(item.label, "done", str(output), details=details)


@dataclass(frozen=True)
class _Taken:
    """A latent with a unique name below the folder; ``label`` is its name in messages."""

    source: Source
    label: str
    found: Found
    name: str


def name_by_file(file: str, form: Format, number: int) -> str:
    """Return a name for a latent whose own name is taken: that of its file, which no other latent has."""
    stem = os.path.splitext(file)[0]  # noqa: PTH122 - a tenth of the time
    return f"{stem}/{number:06d}" if form.holds_many(file) else stem


def why_not_read(source: Source, form: Format, error: Exception) -> str:
    """Return why a file could not be imported: what it is, if it is known to be of another kind.

    Formats share containers, such as .npy, so a file that one of them reads may have the right suffix.
    """
    kind = None if source.path is None else kind_of_file(source.path)
    if kind is None or kind.form == form.name or (kind == LATENT and not _is_latent(source.path)):
        return reason_of(error)
    fits = bool(kind.form) and source.path is not None and source.path.suffix in form.suffixes
    return reason_of(error) if fits else str(kind)


def _is_latent(path: Path | None) -> bool:
    """Return whether a file that begins as a latent file of ours is a whole one, and not cut off."""
    try:
        return path is not None and bool(read_latents(path).records)
    except (AuraVaeError, MemoryError):
        return False


def open_foreign(root: str, name: str) -> Foreign:
    """Open a file of another project; a large one is memory-mapped. Raises LatentFileError."""
    path = os.path.join(root, name)  # noqa: PTH118 - a tenth of the time
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - likewise
            return Foreign(read_or_map(file), root, name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LatentFileError(f"cannot be read: {reason}") from error


def split(source: Source) -> tuple[str, str]:
    """Return the named folder, and the file's name below it."""
    path, name = str(source.path), source.relative.as_posix()
    return path[: len(path) - len(name)].rstrip("/") or "/" * path.startswith("/") or ".", name


@dataclass(frozen=True)
class ImportedFiles:
    """The result of an import: an outcome per latent, and the counts of what was not imported."""

    outcomes: list[Outcome]
    not_taken: Counter[str]


def import_files(
    files: Names,
    output: str | Path,
    of: str,
    *,
    assume_model: str | None = None,
    latent_dtype: str | None = None,
    overwrite: bool = False,
    progress: Progress[Outcome] | None = None,
) -> ImportedFiles:
    """Import latents of another project as latent files, as ``auravae import`` does.

    Args:
        files: files of the other project, folders, patterns.
        output: a folder on this machine.
        of: the name of their format: see docs/exchange.md.
        assume_model: the model that made latents which do not say theirs.
        latent_dtype: how latents are stored; None: as they come.
        overwrite: replace outputs that exist. Finished ones are skipped in any case.
        progress: called with each outcome, the number so far, and about how many there will be.

    Raises:
        UsageError: no file is there. ModelError: the assumed model is not known.
    """
    form, sources, adopt = plan_import(files, of, assume_model, latent_dtype)
    place = named_place(output)
    if is_remote(place):
        raise UsageError(f"{place}: only stores are written there: --layout shards", "output")
    if reason := why_not_there(Path(place) / "result"):
        raise UsageError(f"{reason}, or add --layout shards", "output")
    importer = Importer(form, adopt, Path(place), overwrite, KeptInputs.of(sources))
    return ImportedFiles(follow(importer.run(sources), len(sources), progress), importer.ignored)


def plan_import(
    files: Names, of: str, assume_model: str | None, latent_dtype: str | None
) -> tuple[Format, list[Source], LatentImporter]:
    """The format, the files that it has, and how their latents are taken over."""
    form, names = format_of(of), listed(files)
    sources = [
        source
        for source in collect(names, form.suffixes)
        if str(source.path) in names or not form.ignores(str(source.path))
    ]
    if any(source.path is None for source in sources):
        raise UsageError("expected files: standard input has no name")
    if not sources:
        kinds = " ".join(sorted(form.suffixes))
        raise none_found(names, form.suffixes, f"{kinds}, or folders of them")
    assumed = read_space(assume_model) if assume_model else None
    stored = StoredDtype.parse(latent_dtype) if latent_dtype else None
    return form, sources, LatentImporter(form.name, assumed, stored)
