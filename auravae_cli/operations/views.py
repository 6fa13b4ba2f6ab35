"""Show a latent without its model: its preview, or a map of each channel."""

from __future__ import annotations

from auravae_cli.images.read import Pixels
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.model.preview import channel_map, enlarged, latent_colours, map_range

Cells = list[tuple[str, Pixels]]


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
