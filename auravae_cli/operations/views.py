"""Show pictures, and latents without their model: previews, or a map of each channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from auravae_cli.defaults import MAX_PIXELS
from auravae_cli.errors import AuraVaeError, LatentFileError
from auravae_cli.images.contact_sheet import reduced
from auravae_cli.images.read import LoadedImage, Pixels
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.model.preview import channel_map, enlarged, latent_colours, map_range
from auravae_cli.operations.inputs import Source, collect
from auravae_cli.operations.jobs import Names, listed
from auravae_cli.operations.names import none_found
from auravae_cli.operations.open_any import open_one
from auravae_cli.operations.suffixes import LATENTS, PICTURES
from auravae_cli.store.names import is_store

Cells = list[tuple[str, Pixels]]
MOST_SHOWN = 64  # files: of more, the first


@dataclass(frozen=True)
class View:
    """How a file looks: captioned pictures [H, W, 3], a caption for all of them, and notices."""

    cells: Cells
    caption: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Views:
    """The views of several files: each file's name, with its view or why there is none.

    ``left_out`` is how many files were not looked at.
    """

    of: list[tuple[str, View | AuraVaeError]]
    left_out: int = 0


def view_files(
    names: Names,
    *,
    channels: bool = False,
    in_grey: bool = False,
    key: str | None = None,
    index: int | None = None,
    background: str = "white",
    max_pixels: int = MAX_PIXELS,
) -> Views:
    """Look at pictures and latents, as ``auravae show`` does.

    Args:
        names: files, folders, patterns, or ``-``; of more than `MOST_SHOWN` files, the first.
        channels: a map of each channel of latents, instead of a preview.
        in_grey: maps that differ by brightness only.
        key, index: the row of a shard or a store.
        background, max_pixels: as for `encode_files`.

    Raises:
        UsageError: nothing is named, or folders hold nothing to look at.
    """
    sources = [source for name in listed(names) for source in _sources(name)]
    if not sources:
        raise none_found(
            listed(names), PICTURES | LATENTS, "pictures or latents, or folders of them"
        )
    is_alone = len(sources) == 1

    def look(source: Source) -> View:
        content = open_one(source, key, index, background, max_pixels)
        view = _view(content, channels, in_grey)
        return view if is_alone else _within_a_grid(view, source.relative.as_posix())

    found: list[tuple[str, View | AuraVaeError]] = []
    for source in sources[:MOST_SHOWN]:
        try:
            found.append((source.name, look(source)))
        except AuraVaeError as error:
            found.append((source.name, error))
    return Views(found, max(0, len(sources) - MOST_SHOWN))


def _sources(name: str) -> Iterator[Source]:
    """The files that a name means; a store means itself."""
    if "://" not in name and is_store(name):
        yield Source(Path(name), Path(Path(name).name))
    else:
        yield from collect([name], PICTURES | LATENTS)


def _view(content: LatentFile | LoadedImage, channels: bool, in_grey: bool) -> View:
    """Return how a picture or a latent looks. Raises LatentFileError."""
    if isinstance(content, LatentFile):
        return View(*view_latent(content, channels, in_grey))
    if channels:
        raise LatentFileError("a picture: --channels shows those of a latent")
    height, width = content.pixels.shape[:2]
    return View([("", content.pixels)], f"{width} x {height} pixels", content.notices)


def _within_a_grid(view: View, name: str) -> View:
    """Return a view with its file's name in the captions, and small, since there are many."""
    cells = [(f"{name} {caption}".strip(), reduced(pixels)) for caption, pixels in view.cells]
    return replace(view, cells=cells)


def view_latent(
    content: LatentFile, channels: bool = False, in_grey: bool = False
) -> tuple[Cells, str, tuple[str, ...]]:
    """Return captioned pictures, a caption for all of them, and notices. Raises LatentFileError.

    ``in_grey`` makes maps of channels that differ by brightness only.
    """
    latent, space = content.to_float32(), content.space
    caption = f"latent of {space.model}, {' x '.join(map(str, latent.shape))}"
    if channels:
        top = map_range(latent)
        parities = enumerate(zip(latent, space.irreps.parities, strict=True))
        maps = [
            (f"{number} {parity}", enlarged(channel_map(plane, top, in_grey), content))
            for number, (plane, parity) in parities
        ]
        colours = "dark to bright" if in_grey else "blue to red"
        return maps, f"{caption}; {colours}: {-top:.2f} to {top:.2f}", ()
    pixels, are_true = latent_colours(latent, space)
    unknown = f"no preview is known for the weights of {space.model!r}: principal components drawn"
    notices = () if are_true else (unknown,)
    return [("", enlarged(pixels, content))], f"preview of a {caption}", notices
