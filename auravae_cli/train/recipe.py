"""The recipe of a training run: a file of ``configs/train`` as frozen data. Does not need torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from auravae_cli.errors import ConfigError
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.files.toml_config import read_config
from auravae_cli.model.spec.config import Architecture, SpaceSpec, configs_path

EQUIVARIANCE = ("exact", "learned")
PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = ("adamw", "muon")
LINEAR_START_WIDTH = 96  # three channels for each of 32 normalisation groups


@dataclass(frozen=True)
class Data:
    """The training data.

    ``sources`` are folders and WebDataset tars of pictures. A share ``drawn`` of the samples is
    text and line art, made on the fly, and a share ``flat`` is of one colour; a share ``reduced`` of the
    crops is taken from the picture at a random scale, down to ``min_scale``. ``num_validation`` pictures are held out. Pictures
    are kept decoded in memory, reduced to ``max_side`` pixels if they are longer.
    """

    sources: tuple[str, ...] = ()
    drawn: float = 0.05
    flat: float = 0.0
    reduced: float = 0.5
    min_scale: float = 0.5
    max_side: int = 1024
    num_validation: int = 16

    @property
    def faults(self) -> list[str]:
        """What is out of range; empty if nothing is."""
        return [
            *_shares(self, "drawn", "flat", "reduced"),
            *(["flat: more than drawn leaves"] if self.drawn <= 1 < self.drawn + self.flat else []),
            *_positive(self, "min_scale", "max_side", "num_validation"),
            *(["min_scale: must be at most 1"] if self.min_scale > 1 else []),
        ]


@dataclass(frozen=True)
class Noise:
    """The latent noise: z * (1 + level * n), where n is standard normal, on a share of the samples."""

    level: float = 0.1
    share: float = 0.8

    @property
    def faults(self) -> list[str]:
        """What is out of range; empty if nothing is."""
        return [*_shares(self, "share"), *_at_least_zero(self, "level")]


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss; one of weight 0 is not computed. `losses` defines them."""

    l1: float = 1.0
    mse: float = 2.0
    lpips: float = 0.0
    high_frequency: float = 0.1
    anchor: float = 0.02
    gan: float = 0.0
    chroma: float = 0.0
    mean_colour: float = 0.0
    uniform: float = 0.0

    @property
    def faults(self) -> list[str]:
        """What is out of range; empty if nothing is."""
        faults = _at_least_zero(self, *(field.name for field in fields(self)))
        return faults or ([] if self.l1 + self.mse > 0 else ["l1 or mse must be positive"])


@dataclass(frozen=True)
class Stage:
    """A part of the run with crops of one size, and its ``losses``."""

    steps: int
    crop_size: int
    batch_size: int
    losses: LossWeights = LossWeights()

    @property
    def faults(self) -> list[str]:
        """What is out of range; empty if nothing is."""
        return _positive(self, "steps", "crop_size", "batch_size")


@dataclass(frozen=True)
class Optimizer:
    """AdamW or Muon, with a linear warm-up, and a linear decay to zero over the last ``decay``.

    ``decay`` is a share of all steps; between warm-up and decay the rate is constant, so a run can be
    made longer after it has begun (`Recipe.start`). ``ema`` is the decay of the averaged weights, which
    are the result of a run. Beside Muon, AdamW updates the first and last convolution of each half,
    biases and norms, at ``adamw_rate`` times the rate: its steps are the same for every weight, so they
    add up over a wide layer, and the colour of all pixels would swing.
    """

    kind: str = "adamw"
    learning_rate: float = 6e-4
    warmup_steps: int = 200
    decay: float = 0.3
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    ema: float = 0.999
    adamw_rate: float = 1.0

    @property
    def faults(self) -> list[str]:
        """What is out of range; empty if nothing is."""
        return [
            *_choice(self, "kind", OPTIMIZERS),
            *_shares(self, "beta1", "beta2", "ema", "decay"),
            *_positive(self, "learning_rate", "clip_norm", "adamw_rate"),
            *_at_least_zero(self, "warmup_steps", "weight_decay"),
        ]


@dataclass(frozen=True)
class Recipe:
    """Everything that determines what a run computes.

    ``equivariance`` is ``exact`` (tied weights) or ``learned`` (the reference's: a random group
    element on latent and target, drawn per sample). ``start`` is ``random``, ``linear`` (the closed
    form of `linear_start`), the path of a model's weights, or that of a run's checkpoint, whose
    optimizers continue, too, under this recipe and from its first step. The network can have more residual
    blocks than either: they start as identity, and the optimizers anew. On a share ``latent_crops`` of
    the steps, a random window of half the latent's height and width is decoded and compared with that
    part of the picture, so that borders do not look different. On a share ``reencoded`` of the steps, the
    pictures are encoded and decoded first, and the results are what is learned, so that pictures that were
    decoded once come back as they are. ``lpips_weights`` is a weights file, and LPIPS is computed on a share
    ``lpips_share`` of each batch, since it is expensive.
    """

    name: str
    architecture: Architecture
    stages: tuple[Stage, ...]
    space: SpaceSpec = SpaceSpec()
    start: str = "random"
    equivariance: str = "exact"
    data: Data = Data()
    noise: Noise = Noise()
    optimizer: Optimizer = Optimizer()
    discriminator_learning_rate: float = 2e-4
    precision: str = "bfloat16"
    compile: bool = False
    latent_crops: float = 0.0
    reencoded: float = 0.0
    seed: int = 0
    lpips_weights: str | None = None
    lpips_share: float = 1.0
    checkpoint_every: int = 500

    @property
    def num_steps(self) -> int:
        """The number of steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return the whole recipe as plain JSON."""
        content: dict[str, Any] = read_json(write_json(asdict(self)))
        return content

    def stage_at(self, step: int) -> Stage:
        """Return the stage of step number ``step``, from 0."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    @property
    def faults(self) -> list[str]:
        """What is out of range or contradictory; empty if nothing is."""
        faults = _positive(self, "checkpoint_every", "discriminator_learning_rate")
        if not self.stages:
            faults.append("stages: expected at least one")
        faults += _choice(self, "equivariance", EQUIVARIANCE)
        faults += _choice(self, "precision", PRECISIONS)
        faults += _at_least_zero(self, "seed")
        faults += _shares(self, "latent_crops", "reencoded", "lpips_share")
        return faults if self.architecture.faults else faults + self._network_faults()

    def _network_faults(self) -> list[str]:
        """Return what equivariance, start and stages require of the network and it does not have."""
        faults = []
        for index, stage in enumerate(self.stages):
            if stage.crop_size % self.architecture.downsampling_factor:
                faults.append(
                    f"stages[{index}].crop_size: expected a multiple of "
                    f"{self.architecture.downsampling_factor}, found {stage.crop_size}"
                )
        first, last = self.architecture.widths[0], self.architecture.widths[-1]
        if self.equivariance == "exact" and last > 128 and last % 256:
            faults.append(
                f"architecture: exact equivariance needs a last width of 64, 128 or a multiple of "
                f"256, so that attention heads map to heads; found {last}"
            )
        if self.start == "linear" and first < LINEAR_START_WIDTH:
            faults.append(
                f"architecture: a linear start needs a first width of at least "
                f"{LINEAR_START_WIDTH} (see auravae_cli/train/linear_start.py); found {first}"
            )
        if self.start == "linear" and self.space != SpaceSpec():
            faults.append("space: a linear start needs the latent space of the model linear")
        if (
            self.architecture.latent_channels != self.space.channels
            or self.architecture.downsampling_factor != self.space.downsampling_factor
        ):
            faults.append(
                f"space: {self.space.channels} channels at 1/{self.space.downsampling_factor}, but "
                f"the architecture has {self.architecture.latent_channels} at "
                f"1/{self.architecture.downsampling_factor}"
            )
        return faults


def find_recipe(name: str | Path) -> Recipe:
    """Read a recipe: that of a file, or one of the package by its name. Raises ConfigError."""
    path = Path(name)
    packaged = {file.stem: file for file in sorted((configs_path() / "train").glob("*.toml"))}
    if not path.exists():
        if str(name) not in packaged:
            raise ConfigError(
                f"{name}: no such file: expected a recipe in TOML, or one of {', '.join(packaged)}"
            )
        path = packaged[str(name)]
    return read_config(path, Recipe)


def _choice(table: Any, name: str, choices: tuple[str, ...]) -> list[str]:
    value = getattr(table, name)
    return [] if value in choices else [f"{name}: expected {' or '.join(choices)}, found {value!r}"]


def _shares(table: Any, *names: str) -> list[str]:
    return _unsound(table, names, "a share from 0 to 1", lambda value: 0 <= value <= 1)


def _positive(table: Any, *names: str) -> list[str]:
    return _unsound(table, names, "a positive number", lambda value: value > 0)


def _at_least_zero(table: Any, *names: str) -> list[str]:
    return _unsound(table, names, "at least 0", lambda value: value >= 0)


def _unsound(
    table: Any, names: tuple[str, ...], expected: str, is_sound: Callable[[float], bool]
) -> list[str]:
    return [
        f"{name}: expected {expected}, found {getattr(table, name)}"
        for name in names
        if not is_sound(getattr(table, name))
    ]
