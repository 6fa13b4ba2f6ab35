"""Named, pinned ways to measure, for numbers that can be compared with published tables.

A protocol is a file of ``configs/protocol``: how pictures are resized and cropped, which SSIM is measured,
whether posteriors are sampled, and where the published numbers still differ from what is measured here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from auravae_cli.errors import UsageError
from auravae_cli.evaluation.measure import MeasureOptions
from auravae_cli.files.toml_config import read_config
from auravae_cli.images.metrics import SSIM_KINDS
from auravae_cli.latents.dtypes import FLOAT32
from auravae_cli.model.codec import MODE, SAMPLE
from auravae_cli.model.spec.config import configs_path


@dataclass(frozen=True)
class PublishedNumbers:
    """A line of a published table; None for what it does not say."""

    model: str
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    rfid: float | None = None


@dataclass(frozen=True)
class Protocol:
    """A way to measure, and the numbers that others published by it.

    ``pictures`` is how many the data set has; ``differences`` say what is not as in ``source``.
    """

    title: str
    source: str
    pictures: int
    posterior: str
    ssim: str
    differences: tuple[str, ...]
    resize: int | None = None
    center_crop: int | None = None
    resample: str | None = None
    published: tuple[PublishedNumbers, ...] = field(default=())

    @property
    def faults(self) -> list[str]:
        """What a file may not say; empty if it is sound."""
        return [
            f"{name}: expected {' or '.join(map(str, known))}, found {found!r}"
            for name, found, known in (
                ("posterior", self.posterior, (MODE, SAMPLE)),
                ("ssim", self.ssim, tuple(SSIM_KINDS)),
                ("resample", self.resample, (None, "lanczos", "bilinear", "bicubic")),
            )
            if found not in known
        ]

    def applied(self, options: MeasureOptions) -> MeasureOptions:
        """Return options that measure by it. Raises UsageError if pictures are prepared in another way, too."""
        given = options.preparation
        if given.crop or given.resize or given.center_crop or given.buckets:
            raise UsageError(
                "a protocol says how pictures are prepared: leave out --crop, --resize and --center-crop",
                "protocol",
            )
        side = self.center_crop
        prepared = replace(
            given,
            resize=self.resize,
            center_crop=None if side is None else (side, side),
            resample=self.resample,  # type: ignore[arg-type]
        )
        return replace(options, preparation=prepared, stored_dtype=FLOAT32, ssim=self.ssim)

    def to_json(self, name: str) -> dict[str, Any]:
        """Return it as in an evaluation's summary."""
        return {"name": name, **asdict(self)}


def protocol_names() -> list[str]:
    """Return the names of all protocols, which are those of their files."""
    return sorted(path.stem for path in (configs_path() / "protocol").glob("*.toml"))


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name. Raises UsageError."""
    if name not in protocol_names():
        raise UsageError(
            f"no protocol {name!r}: expected one of {', '.join(protocol_names())}", "protocol"
        )
    return read_config(configs_path() / "protocol" / f"{name}.toml", Protocol)
