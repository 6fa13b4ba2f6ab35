"""What a model is: its architecture, its latent space, and where its weights come from.

Plain frozen data, read from the TOML files in ``configs/model`` and from the metadata of weights
files. Needs neither torch nor the weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from auravae_cli.files.typed import read_as
from auravae_cli.symmetry.group import Irreps

IMAGE_CHANNELS = 3
NORM_GROUPS, NORM_EPSILON = 32, 1e-6
HEAD_CHANNELS = 64  # of attention
MAX_LEVELS = 16  # of resolution; more would leave no cell of any picture
# Words that wrappers put into the names of tensors: of several GPUs, compiled, sharded, recomputed.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def _one_or_many(value: Any) -> int | tuple[int, ...]:
    """Read a number for all levels, or a list of one for each. Raises Faults."""
    return read_as(tuple[int, ...], value) if type(value) in (list, tuple) else read_as(int, value)


@dataclass(frozen=True)
class Architecture:
    """The sizes that determine a network of the AuraEquiVAE family.

    ``ch`` channels at full resolution, ``ch * ch_mult[i]`` at resolution 1 / 2**i, with
    ``num_res_blocks`` residual blocks per level (one more in the decoder): one number for all levels,
    or one for each, from full resolution down.
    """

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: Annotated[int | tuple[int, ...], _one_or_many]
    latent_channels: int

    def __post_init__(self) -> None:
        """Write equal numbers as one, so that equal networks compare equal."""
        if len(set(self.blocks)) == 1:
            object.__setattr__(self, "num_res_blocks", self.blocks[0])

    @property
    def blocks(self) -> tuple[int, ...]:
        """The number of the encoder's residual blocks at each level, from full resolution down."""
        if isinstance(self.num_res_blocks, int):
            return (self.num_res_blocks,) * len(self.ch_mult)
        return self.num_res_blocks

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of channels at each level, from full resolution down."""
        return tuple(self.ch * multiple for multiple in self.ch_mult)

    @property
    def downsampling_factor(self) -> int:
        """Pixels per latent cell, along each axis."""
        return int(2 ** (len(self.ch_mult) - 1))

    @property
    def faults(self) -> list[str]:
        """Why this architecture cannot be built; empty if it can."""
        faults = []
        if not self.ch_mult or min(self.ch, *self.blocks, self.latent_channels) < 1:
            faults.append("ch, ch_mult, num_res_blocks and latent_channels must be positive")
        elif len(self.blocks) != len(self.ch_mult):
            faults.append(
                f"num_res_blocks: expected one number, or {len(self.ch_mult)} as in ch_mult, "
                f"found {len(self.blocks)}"
            )
        elif len(self.ch_mult) > MAX_LEVELS:
            faults.append(f"ch_mult: expected at most {MAX_LEVELS} levels")
        elif any(width < 32 or width % 32 for width in (self.ch, *self.widths)):
            faults.append(f"every width must be a multiple of 32 (norm groups): {self.widths}")
        elif self.widths[-1] % 64:
            faults.append(f"the last width must be a multiple of 64 (heads): {self.widths[-1]}")
        return faults

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> Architecture | None:
        """Derive the sizes from the tensors of a checkpoint, of both halves or of one; None if it is foreign."""
        encoder = "encoder.conv_in.weight" in shapes
        levels, blocks = ("encoder.down", 0) if encoder else ("decoder.up", 1)
        pattern = re.compile(
            rf"{re.escape(levels)}\.(\d{{1,2}})\.block\.(\d{{1,2}})\.conv1\.weight"
        )
        widths: dict[int, int] = {}
        numbers: dict[int, int] = {}
        for match in filter(None, map(pattern.fullmatch, shapes)):
            widths[int(match[1])] = shapes[match[0]][0] if shapes[match[0]] else 0
            number = int(match[2]) + 1 - blocks
            numbers[int(match[1])] = max(numbers.get(int(match[1]), 0), number)
        try:
            # A decoder does not depend on ch itself: any value that divides all widths describes it.
            ch = shapes["encoder.conv_in.weight"][0] if encoder else math.gcd(*widths.values())
            latent = (
                shapes["encoder.conv_out.weight"][0]
                if encoder
                else shapes["decoder.conv_in.weight"][1]
            )
            ch_mult = tuple(widths[level] // ch for level in range(len(widths)))
            num_res_blocks = tuple(numbers[level] for level in range(len(widths)))
        except (KeyError, IndexError, ZeroDivisionError):
            return None
        found = cls(ch, ch_mult, num_res_blocks, latent)
        divides = found.widths == tuple(widths[level] for level in range(len(widths)))
        return found if divides and not found.faults else None


@dataclass(frozen=True)
class SpaceSpec:
    """The shape of a model's latents, and the action of the group on them."""

    channels: int = 16
    downsampling_factor: int = 8
    irreps: Irreps = Irreps.parse("12xee+2xoe+2xeo")
    clamp: float = 8.0

    @property
    def faults(self) -> list[str]:
        """Contradictions; empty if there are none."""
        if self.irreps.dim == self.channels:
            return []
        return [f"irreps: {self.irreps} does not add up to {self.channels} channels"]


@dataclass(frozen=True)
class Quality:
    """How a model reconstructs the pictures called ``data``: means over whole pictures.

    For deterministic latents stored as float16, measured by ``auravae eval``.
    """

    data: str
    psnr: float
    ssim: float
    lpips: float


@dataclass(frozen=True)
class Preview:
    """A linear map from a latent cell to the mean colour of its pixels.

    ``red``, ``green`` and ``blue`` hold a weight for each ``ee`` channel, in channel order, and ``offset``
    is added, for colours in [-1, 1]. No other channel contributes, so a flip of the latent is a flip of
    the preview. It applies only to the weights of ``weights_sha256``; ``scripts/fit_preview.py`` makes it.
    """

    weights_sha256: str
    offset: tuple[float, ...]
    red: tuple[float, ...]
    green: tuple[float, ...]
    blue: tuple[float, ...]

    @property
    def faults(self) -> list[str]:
        """Contradictions; empty if there are none."""
        faults = []
        if len(self.offset) != 3:
            faults.append(f"offset: expected 3 numbers, found {len(self.offset)}")
        if not len(self.red) == len(self.green) == len(self.blue):
            faults.append("red, green and blue: expected as many weights each")
        return faults


@dataclass(frozen=True)
class ModelConfig:
    """A known model: a file of ``configs/model``.

    ``kind`` is ``network`` or ``linear``; ``weights`` names a file embedded in the package;
    ``hub_repo`` and ``hub_file`` name one on the model hub. ``sha256`` lists the files accepted under this
    name; if it is empty, any file with the architecture's names and shapes is.
    """

    name: str
    summary: str
    kind: str
    space: SpaceSpec
    architecture: Architecture | None = None
    weights: str | None = None
    hub_repo: str | None = None
    hub_file: str | None = None
    sha256: tuple[str, ...] = ()
    source: str | None = None
    quality: Quality | None = None
    preview: Preview | None = None

    @property
    def faults(self) -> list[str]:
        """Contradictions; empty if there are none."""
        faults = [
            f"sha256: expected 64 hexadecimal digits, found {digest!r}"
            for digest in self.sha256
            if not re.fullmatch(r"[0-9a-f]{64}", digest)
        ]
        even = len(self.space.irreps.even_channels)
        if self.preview is not None and (found := len(self.preview.red)) != even:
            faults.append(
                f"preview: expected {even} weights, one for each ee channel, found {found}"
            )
        return faults


def canonical_name(name: str) -> str:
    """Return a tensor's name without the words that wrappers add anywhere, and ``vae`` at the front.

    >>> canonical_name("module.vae.encoder._orig_mod.conv_in.weight")
    'encoder.conv_in.weight'
    """
    words = [word for word in name.split(".") if word not in WRAPPERS]
    while words[0:1] == ["vae"]:
        del words[0]
    return ".".join(words)


def conventional_irreps(channels: int) -> Irreps:
    """Return the reference's convention for any width: the last four channels are odd, h before v."""
    if channels <= 4:
        return Irreps(((channels, "ee"),))
    return Irreps(((channels - 4, "ee"), (2, "oe"), (2, "eo")))


def configs_path() -> Path:
    """Return the folder of configs: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[2]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
