"""The names of latents in an export: those of their pictures where trainers look for these; each only once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.exportable import ExportBatch
from auravae_cli.exchange.formats.base import Format, source_name
from auravae_cli.files.places import safe_name
from auravae_cli.operations.suffixes import is_picture
from auravae_cli.operations.taken_names import TakenNames


@dataclass
class ExportNames:
    """Names the files of single latents in a folder."""

    form: Format
    folder: Path

    def __post_init__(self) -> None:
        self._taken = TakenNames(self.folder)

    def place(self, part: ExportBatch) -> ExportBatch:
        """Return a latent under the name that its file gets.

        Raises LatentFileError for a second latent of the same name, whose file would replace the first one's.
        """
        if self.form.paired:  # its files have numbers
            return part
        if self.form.by_picture:
            part = _by_picture(part)
        name = part.names[0]
        place = self.form.folder(part.latents, name) + name
        if self._taken.take(f"{place}_{self.form.apart(part.latents)}"):
            return part
        advice = "export one of them to another folder"
        if self.form.by_picture:
            raise LatentFileError(f"another latent is of a picture {name!r}, too: {advice}")
        if not part.is_row:
            advice = "name the folder above them"
        raise LatentFileError(f"another latent is called {name!r}, too: {advice}")


def _by_picture(part: ExportBatch) -> ExportBatch:
    """Return a latent under its picture's name, in the latent's own folder.

    If the picture is not known, a file that `auravae flip` wrote is named without the flip's tag. A row's
    key has none.
    """
    folder, slash, last = part.names[0].rpartition("/")
    record = part.latents.records[0]
    if record.source and is_picture(record.source):
        last = safe_name(os.path.splitext(source_name(part.latents, last))[0])  # noqa: PTH122
    elif not part.is_row and record.orientation.axes:
        last = last.removesuffix(f".{record.orientation}")
    return replace(part, names=(f"{folder}{slash}{last}",))
