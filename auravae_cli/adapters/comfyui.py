"""Nodes for ComfyUI: load a model, encode, decode, and flip latents without a model.

Copy the folder ``integrations/comfyui`` into ComfyUI's ``custom_nodes``. Importing this module does
not need ComfyUI. ComfyUI's data types: IMAGE is float [B, H, W, 3] in [0, 1], LATENT a dict with
``samples`` [B, C, h, w], VAE any object with the methods of `ComfyVae`.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from auravae_cli.defaults import DEFAULT_MODEL
from auravae_cli.errors import LatentMismatchError, WeightsError
from auravae_cli.images.prepare import representative
from auravae_cli.model.checkpoints.read import read_checkpoint
from auravae_cli.model.codec import Codec, load_codec
from auravae_cli.model.latent_space import locate
from auravae_cli.model.spec.config import conventional_irreps
from auravae_cli.model.spec.registry import known_models, local_weights, model_files
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.geometry import Padding, padding_for
from auravae_cli.symmetry.group import HV, GroupElement, H, V

CATEGORY = "latent/AuraEquiVAE"
FRAME = (
    "auravae_frame"  # the key of a LATENT that holds its pictures' size, and the padding of each
)
DIRECTIONS: dict[str, GroupElement] = {"horizontal": H, "vertical": V, "both": HV}


class ComfyVae:
    """A codec with the methods that ComfyUI's nodes call on a VAE.

    It allocates memory on demand, outside ComfyUI's memory management. Tiles are not needed: a picture
    that does not fit runs in strips of rows, with the same result up to rounding.
    """

    latent_dim = 2
    output_channels = 3

    def __init__(self, codec: Codec, model: str) -> None:
        self.codec, self.model = codec, model
        self.latent_channels = codec.space.irreps.dim
        self.downscale_ratio = self.upscale_ratio = codec.space.downsampling_factor

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Encode an IMAGE [B, H, W, 3 or more] => [B, C, h, w]; cropped to multiples of f, like ComfyUI does."""
        image = pixel_samples[..., :3].movedim(-1, 1)
        for axis in (2, 3):
            surplus = image.shape[axis] % self.downscale_ratio
            image = image.narrow(axis, surplus // 2, image.shape[axis] - surplus)
        return self.encode_whole(image)

    def encode_whole(self, image: Tensor) -> Tensor:
        """Encode [B, 3, H, W] in [0, 1], sides multiples of f => [B, C, h, w], on the same device."""
        latents: Tensor = self.codec.encode_unit(image.float() * 2 - 1)
        return latents.clone()  # an ordinary tensor, not one of inference mode

    def decode(self, samples_in: Tensor, *_: Any, **__: Any) -> Tensor:
        """Decode [B, C, h, w] => IMAGE [B, f*h, f*w, 3]."""
        image: Tensor = self.codec.decode(samples_in.float())
        return (image / 2 + 0.5).clamp(0, 1).movedim(1, -1)

    def encode_tiled(self, pixel_samples: Tensor, *_: Any, **__: Any) -> Tensor:
        """Encode like `encode`."""
        return self.encode(pixel_samples)

    def decode_tiled(self, samples: Tensor, *_: Any, **__: Any) -> Tensor:
        """Decode like `decode`."""
        return self.decode(samples)

    def spacial_compression_encode(self) -> int:
        """Return pixels per cell; the name is ComfyUI's."""
        return self.downscale_ratio

    def spacial_compression_decode(self) -> int:
        """Return pixels per cell; the name is ComfyUI's."""
        return self.upscale_ratio

    def temporal_compression_decode(self) -> None:
        """Return None: pictures have no time axis."""

    def get_sd(self) -> dict[str, Tensor]:
        """Return the weights, under the names of the reference's checkpoint. Raises WeightsError."""
        located = locate(self.model)
        if located.is_linear:
            raise WeightsError(f"model {located.name!r} has no network to save")
        state = read_checkpoint(located.path).state
        return {name: torch.from_numpy(array) for name, array in state.items()}

    def throw_exception_if_invalid(self) -> None:
        """Do nothing: what is loaded is valid."""


class LoadModel:
    """A model's name, or a file of ComfyUI's folder ``models/vae`` => VAE."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Load an AuraEquiVAE model. The VAE works in every node that takes one."
    RETURN_TYPES = ("VAE",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the local models, and the devices."""
        names = [name for name, config in known_models().items() if local_weights(config)]
        names.sort(key=lambda name: name != DEFAULT_MODEL)
        return {
            "required": {
                "model": ([*names, *_vae_files()],),
                "device": (["auto", "cpu", "cuda", "mps"],),
                "dtype": (["auto", "float32", "bfloat16", "float16"],),
            }
        }

    def load(self, model: str, device: str = "auto", dtype: str = "auto") -> tuple[ComfyVae]:
        """Load the model. Raises WeightsError if it is not such a model, DeviceError."""
        path = model if model in model_files() else _vae_path(model)
        return (ComfyVae(load_codec(path, device=device, dtype=dtype), path),)


class Encode:
    """IMAGE => LATENT, padded to multiples of f, whereas VAE Encode crops."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Encode a picture. Sides that are not multiples of 8 are padded, not cropped."
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs: a picture and a model."""
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",)}}

    def encode(self, pixels: Tensor, vae: ComfyVae) -> tuple[dict[str, Any]]:
        """Encode; the latent records its picture's size for `Decode`."""
        _require_ours(vae)
        height, width = pixels.shape[1:3]
        plain = padding_for(height, width, vae.downscale_ratio)
        paddings = tuple(_padding_of(picture, plain) for picture in pixels[..., :3])
        padded = [
            torch.nn.functional.pad(picture[None], padding.as_tuple(), mode="replicate")
            for picture, padding in zip(
                pixels[..., :3].movedim(-1, 1).float(), paddings, strict=True
            )
        ]
        latents = vae.encode_whole(torch.cat(padded))
        return ({"samples": latents, FRAME: (height, width, paddings)},)


class Decode:
    """LATENT => IMAGE of the size that was encoded."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Decode a latent, and crop away what the node of the same pack padded."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs: a latent and a model."""
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",)}}

    def decode(self, samples: dict[str, Any], vae: ComfyVae) -> tuple[Tensor]:
        """Decode; without cropping if the latent was cropped, scaled or made elsewhere."""
        _require_ours(vae)
        image = vae.decode(samples["samples"])
        paddings = _paddings_of(samples)
        if not paddings:
            return (image,)
        height, width, _ = samples[FRAME]
        if image.shape[1:3] != paddings[0].padded(height, width):
            return (image,)
        pictures = zip(image, paddings, strict=True)
        return (torch.stack([one[padding.inner(height, width)] for one, padding in pictures]),)


class Flip:
    """LATENT => LATENT by the group action, exactly and without a model."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Mirror latents of AuraEquiVAE, exactly and without the model. Flip Latent of ComfyUI leaves "
        "out the signs of four channels, and is wrong for them."
    )
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "flip"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs: a latent and a direction; a model only for a special representation."""
        return {
            "required": {"samples": ("LATENT",), "direction": (list(DIRECTIONS),)},
            "optional": {"vae": ("VAE",)},
        }

    def flip(
        self, samples: dict[str, Any], direction: str, vae: ComfyVae | None = None
    ) -> tuple[dict[str, Any]]:
        """Flip the latent, its mask and its padding; return a new dict with the other entries unchanged."""
        g, latents = DIRECTIONS[direction], samples["samples"]
        if vae is not None:
            _require_ours(vae)
            irreps = vae.codec.space.irreps
        else:
            irreps = conventional_irreps(latents.shape[1])
        flipped = {**samples, "samples": act(g, latents, irreps)}
        if "noise_mask" in samples:
            flipped["noise_mask"] = samples["noise_mask"].flip(g.axes)
        if FRAME in samples:
            height, width, paddings = samples[FRAME]
            flipped[FRAME] = (height, width, tuple(padding.act(g) for padding in paddings))
        return (flipped,)


NODE_CLASS_MAPPINGS = {
    "AuraEquiVaeLoad": LoadModel,
    "AuraEquiVaeEncode": Encode,
    "AuraEquiVaeDecode": Decode,
    "AuraEquiVaeFlip": Flip,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AuraEquiVaeLoad": "Load AuraEquiVAE",
    "AuraEquiVaeEncode": "AuraEquiVAE Encode",
    "AuraEquiVaeDecode": "AuraEquiVAE Decode",
    "AuraEquiVaeFlip": "AuraEquiVAE Flip Latent",
}


def _padding_of(picture: Tensor, plain: Padding) -> Padding:
    """Return the padding of a picture [H, W, 3] in [0, 1], its odd pixel on the side where the command puts it."""
    if plain.left == plain.right and plain.top == plain.bottom:
        return plain
    pixels = (picture.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    return plain.act(representative(pixels.numpy()))


def _paddings_of(samples: dict[str, Any]) -> tuple[Padding, ...]:
    """Return the padding of each latent; nothing if a node left latents of which it is not known."""
    if FRAME not in samples:
        return ()
    count, paddings = len(samples["samples"]), samples[FRAME][2]
    if len(paddings) == count:
        return tuple(paddings)
    if len(set(paddings)) == 1:
        return tuple(paddings[:1]) * count
    rows = samples.get("batch_index", ())  # which of them Latent From Batch took
    if len(rows) == count and all(row < len(paddings) for row in rows):
        return tuple(paddings[row] for row in rows)
    return ()


def _require_ours(vae: object) -> None:
    if not isinstance(vae, ComfyVae):
        raise LatentMismatchError(
            f"expected the VAE of Load AuraEquiVAE, found a {type(vae).__name__}: its latents do not "
            "flip in this way"
        )


def _folder_paths() -> Any:
    """Return ComfyUI's module of folder paths; None outside ComfyUI."""
    try:
        return importlib.import_module("folder_paths")
    except ImportError:
        return None


def _vae_files() -> list[str]:
    """Return the files of ComfyUI's folder ``models/vae``."""
    folders = _folder_paths()
    return list(folders.get_filename_list("vae")) if folders else []


def _vae_path(name: str) -> str:
    """Return the path of such a file; outside ComfyUI the name is a path."""
    folders = _folder_paths()
    return (folders.get_full_path("vae", name) if folders else None) or name
