"""A latent as an object: what `encode_image` and `read_latents` return.

::

    latent = read_latents("coffee.safetensors")
    print(latent)  # <Latent [16, 34, 50] float16, of a picture of 399 x 267 pixels
                   #  by model small, from coffee.jpg>
    latent.flip("h").save("mirrored.safetensors")
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from auravae_cli.errors import OutputError
from auravae_cli.files.atomic import write_atomically
from auravae_cli.images.contact_sheet import contact_sheet
from auravae_cli.images.read import Pixels
from auravae_cli.latents.latent_file import LatentFile, read_latents as read_file
from auravae_cli.symmetry.group import GroupElement

if TYPE_CHECKING:
    import torch

MOST_PREVIEWS = 16  # of a shard


class Latent(LatentFile):
    """A latent [C, h, w], or a shard of them [N, C, h, w], with everything that is known about it.

    It is immutable: `flip` gives another one. `np.asarray` gives the values as float16 or float32,
    `to_torch` as a tensor of their own type. In a notebook it shows its preview.
    """

    def flip(self, g: GroupElement | str) -> Latent:
        """Return the flipped latent: by ``"h"``, ``"v"``, ``"hv"`` (or `H`, `V`, `HV`). Exact."""
        return self.act(g)

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the latent to a file, as `read_latents` reads it. Return its path.

        Raises OutputError if there is a file already, unless ``overwrite``, or it cannot be written.
        """
        place = Path(path)
        if os.path.exists(place) and not overwrite:
            raise OutputError(f"{place} exists already: name another file, or say overwrite=True")
        write_atomically(place, self.to_bytes())
        return place

    def to_torch(self, device: str = "cpu") -> torch.Tensor:
        """Return a copy of the values as a tensor: float16, bfloat16 or float32, as they are stored."""
        import torch

        values = np.array(self.values)  # a copy, since files are mapped for reading only
        if self.dtype.name == "bfloat16":
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16).to(device)
        return torch.from_numpy(values).to(device)

    def preview(self) -> Image.Image:
        """Return a picture of the latent, without its model; of a shard, the first 16 side by side.

        Colours are those of the picture where the model has a fitted preview, else principal components.
        """
        if not self.is_shard:
            return Image.fromarray(self._preview())
        rows = [self.row(index) for index in range(min(MOST_PREVIEWS, len(self.records)))]
        cells = [(row.records[0].key or f"{n}", row._preview()) for n, row in enumerate(rows)]
        return Image.fromarray(contact_sheet(cells, columns=4))

    def _preview(self) -> Pixels:
        from auravae_cli.model.preview import enlarged, latent_colours

        colours, _ = latent_colours(self.to_float32(), self.space)
        return enlarged(colours, self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.preview().save(buffer, "PNG")
        return buffer.getvalue()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        is_wide = self.dtype.name == "bfloat16"  # which numpy lacks; float32 holds it exactly
        if is_wide and copy is False:
            raise ValueError("bfloat16 values cannot be an array without a copy")
        values = self.dtype.to_float32(self.values) if is_wide else self.values
        return np.array(values, dtype, copy=None if copy is None or is_wide else copy)

    def __dlpack__(self, **_: Any) -> Any:
        if self.dtype.name == "bfloat16":  # which numpy lacks
            return self.to_torch().__dlpack__()
        return np.array(self.values).__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU

    def __repr__(self) -> str:
        height, width = self.records[0].image_size if self.records else (0, 0)
        number = f"{len(self.records)} pictures" if self.is_shard else "a picture"
        what = f"{list(self.shape)} {self.dtype.name}, of {number} of {width} x {height} pixels"
        facts = [f"by model {self.space.model}"]
        if not self.is_shard:
            record = self.records[0]
            facts += [f"flipped by {record.orientation}"] if record.orientation.axes else []
            facts += [f"from {record.source}"] if record.source else []
        return f"<Latent {what}\n {', '.join(facts)}>"


def read_latents(path: Path | str) -> Latent:
    """Read a latent file or a shard; a large one is memory-mapped. Raises LatentFileError."""
    return in_hand(read_file(path))


def in_hand(latents: LatentFile) -> Latent:
    """Return the same latents as an object for users."""
    return Latent(**vars(latents))
