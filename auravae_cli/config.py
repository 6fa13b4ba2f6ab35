"""What a model is: its architecture, its latent space, and where its weights come from.

Plain frozen data, read from the TOML files in ``configs/model`` and from the metadata of weight
files. Needs neither torch nor the weights.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from auravae_cli.errors import ConfigError
from auravae_cli.group import Irreps

IMAGE_CHANNELS = 3
FOREIGN_PREFIXES = ("module.", "_orig_mod.", "vae.")

Config = TypeVar("Config")
_NOTHING: Any = object()  # in place of a value that could not be read


@dataclass(frozen=True)
class Architecture:
    """The sizes that fix a network of the AuraEquiVAE family.

    ``ch`` channels at full resolution, ``ch * ch_mult[i]`` at resolution 1 / 2**i, with
    ``num_res_blocks`` residual blocks a level (one more in the decoder).
    """

    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    latent_channels: int

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
        """What makes this architecture impossible to build; empty where nothing does."""
        faults = []
        if not self.ch_mult or min(self.ch, self.num_res_blocks, self.latent_channels) < 1:
            faults.append("ch, ch_mult, num_res_blocks and latent_channels must be positive")
        elif any(width < 32 or width % 32 for width in (self.ch, *self.widths)):
            faults.append(f"every width must be a multiple of 32 (norm groups): {self.widths}")
        elif self.widths[-1] % 64:
            faults.append(f"the last width must be a multiple of 64 (heads): {self.widths[-1]}")
        return faults

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> Architecture | None:
        """Read the sizes off a checkpoint's tensors, of both halves or of one; None if foreign."""
        encoder = "encoder.conv_in.weight" in shapes
        levels, blocks = ("encoder.down", 0) if encoder else ("decoder.up", 1)
        pattern = re.compile(
            rf"{re.escape(levels)}\.(\d{{1,2}})\.block\.(\d{{1,2}})\.conv1\.weight"
        )
        widths: dict[int, int] = {}
        num_blocks = 0
        for match in filter(None, map(pattern.fullmatch, shapes)):
            widths[int(match[1])] = shapes[match[0]][0] if shapes[match[0]] else 0
            num_blocks = max(num_blocks, int(match[2]) + 1)
        try:
            # A decoder does not depend on ch itself: any that divides all widths describes it.
            ch = shapes["encoder.conv_in.weight"][0] if encoder else math.gcd(*widths.values())
            latent = (
                shapes["encoder.conv_out.weight"][0]
                if encoder
                else shapes["decoder.conv_in.weight"][1]
            )
            ch_mult = tuple(widths[level] // ch for level in range(len(widths)))
        except (KeyError, IndexError, ZeroDivisionError):
            return None
        found = cls(ch, ch_mult, num_blocks - blocks, latent)
        divides = found.widths == tuple(widths[level] for level in range(len(widths)))
        return found if divides and not found.faults else None


@dataclass(frozen=True)
class LatentSpace:
    """What a latent of a model looks like, and how the group acts on it."""

    channels: int = 16
    downsampling_factor: int = 8
    irreps: Irreps = Irreps.parse("12xee+2xoe+2xeo")
    clamp: float = 8.0

    @property
    def faults(self) -> list[str]:
        """What contradicts itself; empty where nothing does."""
        if self.irreps.dim == self.channels:
            return []
        return [f"irreps: {self.irreps} does not add up to {self.channels} channels"]


@dataclass(frozen=True)
class Quality:
    """How a model reconstructs the pictures called ``data``: means over whole pictures.

    Deterministic latents stored as float16; ``auravae eval`` measures it.
    """

    data: str
    psnr: float
    ssim: float
    lpips: float


@dataclass(frozen=True)
class Preview:
    """A linear map from a latent cell to the mean colour of the pixels that it stands for.

    ``red``, ``green`` and ``blue`` hold a weight for each ``ee`` channel, in channel order, and
    ``offset`` what is added, for colours in [-1, 1]. No other channel has a say, so a flip of the
    latent is a flip of the preview. It holds for the weights of ``weights_sha256`` alone;
    ``scripts/fit_preview.py`` makes it.
    """

    weights_sha256: str
    offset: tuple[float, ...]
    red: tuple[float, ...]
    green: tuple[float, ...]
    blue: tuple[float, ...]

    @property
    def faults(self) -> list[str]:
        """What contradicts itself; empty where nothing does."""
        faults = []
        if len(self.offset) != 3:
            faults.append(f"offset: expected 3 numbers, found {len(self.offset)}")
        if not len(self.red) == len(self.green) == len(self.blue):
            faults.append("red, green and blue: expected as many weights each")
        return faults


@dataclass(frozen=True)
class ModelConfig:
    """One known model: a file of ``configs/model``.

    ``kind`` is ``network`` or ``linear``; ``weights`` names a file embedded in the package;
    ``hub_repo`` and ``hub_file`` name one on the model hub.
    """

    name: str
    summary: str
    kind: str
    space: LatentSpace
    architecture: Architecture | None = None
    weights: str | None = None
    hub_repo: str | None = None
    hub_file: str | None = None
    source: str | None = None
    quality: Quality | None = None
    preview: Preview | None = None

    @property
    def faults(self) -> list[str]:
        """What contradicts itself; empty where nothing does."""
        even = len(self.space.irreps.even_channels)
        if self.preview is None or len(self.preview.red) == even:
            return []
        found = len(self.preview.red)
        return [f"preview: expected {even} weights, one for each ee channel, found {found}"]


def canonical_name(name: str) -> str:
    """A tensor's name without the prefixes that wrappers put before it."""
    while prefix := next((p for p in FOREIGN_PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def conventional_irreps(channels: int) -> Irreps:
    """The reference's convention for any width: the last four channels are odd, h before v."""
    if channels <= 4:
        return Irreps(((channels, "ee"),))
    return Irreps(((channels - 4, "ee"), (2, "oe"), (2, "eo")))


def configs_path() -> Path:
    """The folder of configs: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def read_model_config(path: Path) -> ModelConfig:
    """Read a file of ``configs/model``. All its faults are reported in one `ConfigError`."""
    return read_config(path, ModelConfig)


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file as a frozen dataclass, tables as the dataclasses that its fields name.

    Raises:
        ConfigError: lists every unknown, missing or mistyped key, and what the ``faults`` property
            of any of the dataclasses finds.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    return build_config(table, kind, str(path))


def build_config(table: Mapping[str, Any], kind: type[Config], origin: str) -> Config:
    """A dataclass from a parsed table; see `read_config`. ``origin`` names it in the error."""
    faults: list[str] = []
    config: Config = _build(kind, table, "", faults)
    if faults:
        raise ConfigError("\n".join([f"{origin}:", *(f"  {fault}" for fault in faults)]))
    return config


def _build(kind: type, table: Any, prefix: str, faults: list[str]) -> Any:
    """A dataclass from a TOML table, or `_NOTHING`; what is wrong goes to ``faults``."""
    if not isinstance(table, dict):
        faults.append(f"{prefix.rstrip('.')}: expected a table, found {table!r}")
        return _NOTHING
    types = get_type_hints(kind)
    faults += [f"{prefix}{key}: unknown key" for key in table if key not in types]
    values = {}
    for key in table:
        if key in types:
            values[key] = _convert(table[key], types[key], f"{prefix}{key}", faults)
    missing = [
        field.name
        for field in fields(kind)
        if field.name not in table and field.default is field.default_factory is MISSING
    ]
    if missing:
        faults.append(f"{prefix.rstrip('.') or 'file'}: missing {', '.join(missing)}")
    if missing or _NOTHING in values.values():
        return _NOTHING
    built = kind(**values)
    faults += [f"{prefix}{fault}" for fault in getattr(built, "faults", [])]
    return built


def _convert(value: Any, kind: Any, place: str, faults: list[str]) -> Any:
    """A TOML value as the annotated type, or `_NOTHING`; what is wrong goes to ``faults``."""
    if get_origin(kind) is UnionType:  # X | None: TOML has no null, so a value is never None
        kind = next(choice for choice in get_args(kind) if choice is not type(None))
    if is_dataclass(kind) and kind is not Irreps:
        return _build(kind, value, f"{place}.", faults)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(value, list):
            items = [_convert(v, item, f"{place}[{i}]", faults) for i, v in enumerate(value)]
            return _NOTHING if _NOTHING in items else tuple(items)
        faults.append(f"{place}: expected a list, found {value!r}")
    elif kind is Irreps and isinstance(value, str):
        try:
            return Irreps.parse(value)
        except ValueError as error:
            faults.append(f"{place}: {error}")
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    else:
        name = "str" if kind is Irreps else kind.__name__
        faults.append(f"{place}: expected {name}, found {value!r}")
    return _NOTHING
