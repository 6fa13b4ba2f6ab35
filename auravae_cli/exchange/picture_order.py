"""Number latents in the order of their pictures' files, for readers that pair the two by their places."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from auravae_cli.errors import LatentFileError, UsageError
from auravae_cli.exchange.exportable import ExportBatch
from auravae_cli.exchange.formats.base import label_of
from auravae_cli.exchange.formats.edm2 import read_index
from auravae_cli.operations.batches import Outcome, failed


@dataclass
class PictureOrder:
    """The pictures of a folder in the order of their names, as REPA lists them, and their labels."""

    folder: Path
    names: list[str]
    labels: dict[str, int]
    _free: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = {_stem(name): number for number, name in enumerate(self.names)}

    @classmethod
    def read(cls, folder: Path) -> PictureOrder:
        """List a folder; labels are those of its ``dataset.json``. Raises UsageError."""
        if not folder.is_dir():
            raise UsageError(f"{folder}: expected the folder of the pictures", "pictures")
        from PIL import Image

        Image.init()
        suffixes = Image.EXTENSION.keys() | {".npy"}
        names = sorted(
            Path(place, name).relative_to(folder).as_posix()
            for place, _, files in os.walk(folder)
            for name in files
            if os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122
        )
        if len({_stem(name) for name in names}) < len(names):
            raise UsageError(f"{folder}: two pictures differ in their suffixes alone", "pictures")
        index = read_index(folder)
        return cls(folder, names, dict(index.labels) if index else {})

    def place(self, part: ExportBatch) -> tuple[int, ExportBatch]:
        """Return the number of a latent's picture, and the latent with that picture's label if it had none.

        Raises LatentFileError if the folder has no such picture, or another latent took it.
        """
        record = part.latents.records[0]
        stems = [_stem(name) for name in (record.source, record.key) if name]
        stem = next((stem for stem in (*stems, *part.names) if stem in self._free), None)
        if stem is None:
            raise LatentFileError(
                f"no picture {record.source or part.names[0]!r} in {self.folder}, or it has a latent already"
            )
        number = self._free.pop(stem)
        label = self.labels.get(self.names[number])
        if label is None or label_of(record) is not None:
            return number, part
        labelled = replace(record, annotations={**record.annotations, "label": label})
        return number, replace(part, latents=replace(part.latents, records=(labelled,)))

    def missing(self) -> Iterator[Outcome]:
        """Yield a failure for each picture that no latent was of."""
        for number in self._free.values():
            yield failed(str(self.folder / self.names[number]), "no latent is of this picture")


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
