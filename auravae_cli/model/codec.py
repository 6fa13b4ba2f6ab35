"""The codec: pixels <-> latents, for arrays, tensors, Pillow images and files.

::

    picture --prepare--> [3, H', W'] --encode--> raw latent --clamp--> latent [C, h, w]
    latent --decode--> [3, H', W'] --crop--> [3, H, W] --clip, round--> picture
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auravae_cli.defaults import DEFAULT_MODEL
from auravae_cli.errors import ComputeError, InputImageError, LatentFileError, WeightsError
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import read_file
from auravae_cli.images.prepare import Preparation, PreparedImage
from auravae_cli.images.read import LoadedImage, Pixels, from_pillow, from_unit, read_image
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import FLOAT16, StoredDtype
from auravae_cli.latents.latent_file import LatentFile, LatentSpace, Record, read_latents
from auravae_cli.model.autoencoder import Autoencoder
from auravae_cli.model.canonical import CANONICAL, MEAN, NONE, SYMMETRIES, run_canonically
from auravae_cli.model.latent import Latent, in_hand
from auravae_cli.model.latent_space import locate, require_architecture
from auravae_cli.model.linear import LinearAutoencoder
from auravae_cli.model.symmetrized import Symmetrized, mirrored
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.group import GroupElement, Irreps
from auravae_cli.version import __version__

if TYPE_CHECKING:
    from auravae_cli.model.loaded_network import Network
    from auravae_cli.model.placement import Placement
    from auravae_cli.model.spec.config import Architecture

PARTS = ("encoder", "decoder")
_MOST_OVERSHOOT = 2.0  # of values about [-1, 1], as resizing makes them
POINT, MODE, SAMPLE = "point", "mode", "sample"


@dataclass(frozen=True)
class Codec:
    """A loaded model with its latent space.

    ``device`` is where it runs, in ``compute_dtype``; ``batch_size`` how many pictures of one size it runs best at once
    (one on a CPU, where larger batches gain nothing and would change the last bits). ``engine`` is
    ``channels-last`` where the network runs prepared for a GPU, ``native`` where it runs by kernels in C on
    a CPU, ``plain`` where all is left to torch; ``kernels`` names it with its instructions, on which last
    bits depend. ``symmetry`` is ``none``, ``mean`` (see `symmetrized`) or ``canonical``. ``posterior``
    is ``point`` for models that have none, else what is taken of it: the ``mode``, or a ``sample``.
    """

    space: LatentSpace
    autoencoder: Autoencoder
    device: str = "cpu"
    batch_size: int = 1
    compute_dtype: str = "float32"
    engine: str = "plain"
    kernels: str | None = None
    symmetry: str = NONE
    posterior: str = POINT

    def __repr__(self) -> str:
        """Return what is loaded and where it runs: ``<Codec small, 12xee+2xoe+2xeo, float32 on cpu>``."""
        return f"<Codec {self.space.model}, {self.space.irreps}, {self.compute_dtype} on {self.device}>"

    def encode(self, images: Any, *, check: bool = True) -> Any:
        """Encode pixels to latents.

        Args:
            images: numpy array or torch tensor [B, 3, H, W]: float in [-1, 1], or uint8; H and W are
                multiples of ``space.downsampling_factor``.
            check: refuse values that look like another range than [-1, 1]. Pictures without any value
                below mid-grey look like [0, 1]: pass False for them.

        Returns:
            [B, C, H/f, W/f], float32, clamped to +-``space.clamp``; of the same kind, on the same
            device. Deterministic: this model family has no posterior to sample from.

        Raises:
            ValueError: another shape, type or range.
            ComputeError: out of memory even for one picture, or NaN or infinity came out.
        """
        return self.encode_unit(in_unit_range(images, check))

    def encode_unit(self, images: Any) -> Any:
        """Encode float pixels that are known to be in [-1, 1], as `encode` does."""
        factor = self.space.downsampling_factor
        if (
            len(images.shape) != 4
            or images.shape[1] != 3
            or any(s % factor or not s for s in images.shape[2:])
        ):
            raise ValueError(
                f"expected [B, 3, H, W] in multiples of {factor}, found {tuple(images.shape)}"
            )
        encode = self.autoencoder.encode
        if self.symmetry == CANONICAL:
            raw = run_canonically(encode, images, mirrored, self._act)
        else:
            raw = encode(images)
        if not (abs(raw) < math.inf).all():  # the clamp would make infinity look like a latent
            raise ComputeError("the encoder gave NaN or infinite values; try --dtype float32")
        return raw.clip(-self.space.clamp, self.space.clamp)

    def decode(self, latents: Any) -> Any:
        """Decode latents [B, C, h, w] => pixels [B, 3, f*h, f*w], float32, about [-1, 1], not clipped.

        Raises:
            ValueError: another shape.
            ComputeError: out of memory even for one latent.
        """
        channels = self.space.irreps.dim
        if len(latents.shape) != 4 or latents.shape[1] != channels or 0 in latents.shape[2:]:
            raise ValueError(f"expected [B, {channels}, h, w], found {tuple(latents.shape)}")
        decode = self.autoencoder.decode
        if self.symmetry == CANONICAL:
            return run_canonically(decode, latents, self._act, mirrored)
        return decode(latents)

    def _act(self, g: GroupElement, latents: Any) -> Any:
        return act(g, latents, self.space.irreps)

    def encode_image(
        self,
        image: Image.Image | Pixels | LoadedImage | Path | str,
        preparation: Preparation = Preparation(),
        dtype: StoredDtype | str = FLOAT16,
    ) -> Latent:
        """Encode a picture of any size to a latent with its header.

        Args:
            image: a path, a Pillow image, uint8 or uint16 [H, W, 3], or the result of `read_image`.
            preparation: crop, resize and padding; the default keeps every pixel.
            dtype: how to store the latent: ``float16``, ``bfloat16`` or ``float32``.

        Raises:
            InputImageError: the picture cannot be read.
            ComputeError: see `encode`.
        """
        stored = StoredDtype.parse(dtype) if isinstance(dtype, str) else dtype
        loaded = load_image(image, preparation.background)
        prepared = preparation.apply(loaded, self.space.downsampling_factor)
        source = str(image) if isinstance(image, (str, Path)) else None
        values = self.encode_unit(prepared.padded[None])[0]
        return in_hand(self.store(values, prepared, stored, source))

    def encode_images(
        self,
        images: Iterable[Image.Image | Pixels | LoadedImage | Path | str],
        preparation: Preparation = Preparation(),
        dtype: StoredDtype | str = FLOAT16,
    ) -> list[Latent]:
        """Encode several pictures of any sizes, each as `encode_image` does."""
        return [self.encode_image(image, preparation, dtype) for image in images]

    def store(
        self,
        latent: NDArray[np.float32],
        image: PreparedImage,
        dtype: StoredDtype,
        source: str | None,
        key: str | None = None,
        annotations: dict[str, Any] | None = None,
    ) -> LatentFile:
        """Round a latent to its storage type, and make its header."""
        height, width = image.loaded.pixels.shape[:2]
        whole = image.pixels.shape[:2] == (height, width)
        record = Record(
            image_size=(image.pixels.shape[0], image.pixels.shape[1]),
            padding=image.padding,
            source=source,
            source_sha256=image.loaded.sha256,
            exif_orientation=image.loaded.exif_orientation,
            preparation=image.preparation.to_json(),
            key=key,
            source_size=None if whole else (height, width),
            source_box=None if whole else image.box,
            annotations=annotations or {},
            computed=self.computed,
        )
        stored = dtype.from_float32(latent)
        return LatentFile(stored, dtype, self.space, (record,), __version__)

    def decode_latents(
        self, latents: Sequence[LatentFile], *, noise: float = 0, seed: int = 0, bits: int = 8
    ) -> list[Pixels]:
        """Decode stored latents to pictures [H, W, 3] of their exact sizes; those of one shape at once.

        Args:
            latents: single latents of this model (``require_space`` checks that, this does not).
            noise: each value is multiplied by 1 + noise * n, where n is standard normal, from ``seed``.
            bits: 8 for uint8, 16 for uint16.

        Raises:
            LatentFileError: a value is not finite.
            ComputeError: see `decode`, or the result has NaN.
        """
        if len({latent.values.shape for latent in latents}) > 1:
            options = {"noise": noise, "seed": seed, "bits": bits}
            return [self.decode_latents([latent], **options)[0] for latent in latents]  # type: ignore[arg-type]
        batch = np.stack([latent.to_float32() for latent in latents])
        images = self.decode_finite(add_noise(batch, noise, seed))
        return [finish(z, image, bits) for z, image in zip(latents, images, strict=True)]

    def decode_finite(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decode like `decode`; also raise ComputeError if the result has NaN or infinity."""
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            images: NDArray[np.float32] = self.decode(latents)
        if not np.isfinite(images).all():
            raise ComputeError("the decoder gave NaN or infinite values; try --dtype float32")
        return images

    @property
    def computed(self) -> dict[str, str]:
        """What last bits depend on, apart from the weights, as in the record of a latent."""
        known = {"dtype": self.compute_dtype, "kernels": self.kernels, "symmetry": self.symmetry}
        return {name: value for name, value in known.items() if value is not None}

    def symmetrized(self) -> Codec:
        """Return the model averaged over the group: exactly equivariant, at four times the cost."""
        if self.space.is_symmetrized:
            return self
        space = replace(self.space, is_symmetrized=True)
        autoencoder = Symmetrized(self.autoencoder, space.irreps)
        return replace(self, space=space, autoencoder=autoencoder, symmetry=MEAN)

    def decode_latent(self, latent: LatentFile | Path | str, **options: Any) -> Pixels:
        """Decode one stored latent to a picture; options as for `decode_latents`. Raises LatentFileError."""
        stored = latent if isinstance(latent, LatentFile) else read_latents(Path(latent))
        if stored.is_shard:
            raise LatentFileError("a shard of latents: expected a single one")
        stored.require_space(self.space)
        return self.decode_latents([stored], **options)[0]


def in_unit_range(images: Any, check: bool) -> Any:
    """Return pixels as float in [-1, 1]; uint8 is converted. Raises ValueError for what cannot be that."""
    kind = str(images.dtype).removeprefix("torch.")
    if kind == "uint8":
        floats = images.astype(np.float32) if isinstance(images, np.ndarray) else images.float()
        return floats / 255 * 2 - 1
    if "float" not in kind:
        raise ValueError(f"{kind} pixels: expected float in [-1, 1], or uint8")
    if not check or 0 in images.shape:
        return images
    least, most = float(images.min()), float(images.max())
    if max(-least, most) > _MOST_OVERSHOOT:
        raise ValueError(
            f"pixels from {least:.4g} to {most:.4g}: expected [-1, 1]; those in [0, 255] become that by "
            "images / 127.5 - 1"
        )
    if 0 <= least < 0.25 and 0.6 < most <= 1:
        raise ValueError(
            f"pixels from {least:.4g} to {most:.4g}, as if they were in [0, 1]: expected [-1, 1], which they "
            "become by images * 2 - 1; if they are right and only bright, pass check=False"
        )
    return images


def finish(latent: LatentFile, image: NDArray[np.float32], bits: int = 8) -> Pixels:
    """Convert the decoder's output [3, f*h, f*w] to the latent's picture [H, W, 3], cropping the padding."""
    record = latent.records[0]
    return from_unit(image[:, *record.padding.inner(*record.image_size)], bits)


def add_noise(latents: NDArray[np.float32], noise: float, seed: int) -> NDArray[np.float32]:
    """Multiply each value of latents [B, C, h, w] by 1 + ``noise`` * n, where n is standard normal.

    The draw is the same for every latent, whatever else is in the batch.
    """
    if not noise:
        return latents
    draw = np.random.default_rng(seed).standard_normal(latents.shape[1:], np.float32)
    with np.errstate(over="ignore"):
        noisy: NDArray[np.float32] = latents * (1 + np.float32(noise) * draw)
    return noisy


def load_image(
    image: Image.Image | Pixels | LoadedImage | Path | str, background: str
) -> LoadedImage:
    """Return any form of picture as a `LoadedImage`. Raises InputImageError."""
    if isinstance(image, LoadedImage):
        return image
    if isinstance(image, (str, Path)):
        content = read_file(Path(image), FILE_BYTES, InputImageError)
        return read_image(content, background=background)
    if isinstance(image, Image.Image):
        return from_pillow(image, background=background)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in (np.uint8, np.uint16):
        raise InputImageError(
            f"expected uint8 or uint16 [H, W, 3], found {image.dtype} {image.shape}"
        )
    return LoadedImage(image, hashlib.sha256(image.tobytes()).hexdigest(), 1, ())


def load_codec(
    model: str = DEFAULT_MODEL,
    *,
    parts: tuple[str, ...] = PARTS,
    device: str = "auto",
    dtype: str = "auto",
    memory: int | None = None,
    symmetrize: bool | str = "auto",
) -> Codec:
    """Load a model.

    Args:
        model: a name (``auravae models list``) or the path of a checkpoint.
        parts: ``("encoder",)`` or ``("decoder",)`` load that half alone.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16``, ``float16``: what the network computes in.
        memory: bytes that a network's features may take, in each thread that runs it; larger
            pictures run in strips, with the same result. None: most of what is free.
        symmetrize: ``mean`` or True: average over the group (see `symmetrized`). ``canonical``: run of each
            picture's or latent's four mirror images the one that comes first (see
            `model.canonical`), at no cost. ``none`` or False: as the network is. ``auto``: ``canonical`` for
            tied weights, where it changes last bits alone, else ``none``.

    Raises:
        WeightsError: no such model, or damaged weights. DeviceError: no such device.
    """
    codec = _load(model, parts, device, dtype, memory)
    how = symmetrize if isinstance(symmetrize, str) else MEAN if symmetrize else NONE
    if how not in ("auto", *SYMMETRIES):
        raise ValueError(f"symmetrize {how!r}: expected auto or one of {', '.join(SYMMETRIES)}")
    if how == MEAN:
        return codec.symmetrized()
    return codec if how == "auto" else replace(codec, symmetry=how)


def _load(model: str, parts: tuple[str, ...], device: str, dtype: str, memory: int | None) -> Codec:
    located = locate(model)
    if located.is_linear:
        space = located.space()
        return Codec(space, _load_linear(located.path, space.irreps))
    from auravae_cli.model.placement import kernels_of, place

    where = place(device, dtype, located.is_tied)
    network, architecture = _load_network(located.path, parts, where, memory)
    require_architecture(located.path, located.config, architecture)
    return Codec(
        located.space(architecture),
        network,
        where.device,
        where.batch_size,
        where.dtype,
        where.engine,
        kernels_of(where),
        CANONICAL if located.is_tied else NONE,
    )


def _load_network(
    path: Path, parts: tuple[str, ...], where: Placement, memory: int | None
) -> tuple[Network, Architecture]:
    from auravae_cli.model.cpu.native import NATIVE

    if where.engine == NATIVE:
        from auravae_cli.model.loaded_network import load_network

        return load_network(path, parts, where, memory)
    from auravae_cli.model.torch_network import load_torch_network

    return load_torch_network(path, parts, where, memory)


def _load_linear(path: Path, irreps: Irreps) -> LinearAutoencoder:
    try:
        tensors, _ = safetensors_file.parse(path.read_bytes())
        basis, mean, scale = (tensors[name].values for name in ("basis", "mean", "scale"))
    except (OSError, LatentFileError, KeyError) as error:
        raise WeightsError(f"{path}: no linear model ({error})") from error
    if (basis.shape, mean.shape, scale.shape) != ((irreps.dim, 3, 4, 4), (3, 4, 4), (irreps.dim,)):
        raise WeightsError(
            f"{path}: the linear model's tensors do not have the shapes for {irreps}"
        )
    return LinearAutoencoder(basis, mean, scale, irreps)
