"""The data of a page: an evaluation's summary, its rows, and the pictures to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Model = Mapping[str, Any]

# The files of a picture.
ORIGINAL, RECONSTRUCTION, DIFFERENCE = "original.webp", "reconstruction.webp", "difference.webp"
COMPONENTS, LATENT = "latent.png", "latent.safetensors"


@dataclass(frozen=True)
class Choice:
    """What a page shows: names of pictures in groups with titles, and the one shown in detail."""

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    featured: str

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, each once."""
        shown = (name for _, names in self.groups for name in names)
        return tuple(dict.fromkeys((*shown, self.featured)))


@dataclass(frozen=True)
class PageData:
    """Everything, as plain data.

    ``rows`` has the row of each (label, picture); ``file`` gives a picture's file by label,
    picture and name, or None where it could not be made.
    """

    summary: Mapping[str, Any]
    rows: Mapping[tuple[str, str], Mapping[str, Any]]
    choice: Choice
    file: Callable[[str, str, str], bytes | None]

    @property
    def models(self) -> Sequence[Model]:
        """The models' parts of the summary, in the order in which they were named."""
        models: Sequence[Model] = self.summary["models"]
        return models

    @property
    def labels(self) -> list[str]:
        """The models' names."""
        return [model["label"] for model in self.models]

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each shown picture on the page, from 1, used in links."""
        names = (name for _, group in self.choice.groups for name in group)
        return {name: number for number, name in enumerate(names, 1)}
