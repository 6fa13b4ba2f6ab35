"""The aspect-ratio buckets of trainers: the sizes to which they resize and crop pictures.

A trainer finds a latent only in the size of its own bucket, so these are its rules, number for number:
sd-scripts (library/train_util.py BucketManager, library/model_util.py, at 48d368fa), musubi-tuner
(dataset/bucket.py, dataset/media_utils.py, at 30c658c4) and ai-toolkit (toolkit/buckets.py,
toolkit/dataloader_mixins.py setup_buckets, at 27a03a91). Sizes are (height, width).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

from auravae_cli.errors import InputImageError

Size = tuple[int, int]


class _Resizing:
    """What the buckets of all trainers can say."""

    def resized(self, height: int, width: int) -> Size:
        """Return the size to which a picture is resized before it is cropped to its bucket."""
        raise NotImplementedError

    def scales(self, height: int, width: int) -> tuple[float, float]:
        """Return by how much height and width are scaled; a trainer rounds them apart."""
        size = self.resized(height, width)
        return size[0] / height, size[1] / width


@dataclass(frozen=True)
class KohyaBuckets(_Resizing):
    """sd-scripts' buckets, with the options of its dataset configuration.

    >>> KohyaBuckets((1024, 1024)).nearest(683, 1024)
    (704, 1024)
    """

    resolution: Size
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64
    bucket_no_upscale: bool = False
    of: str = "kohya"

    @property
    def step(self) -> int:
        """What all sides are multiples of."""
        return self.bucket_reso_steps

    @property
    def faults(self) -> list[str]:
        """Why the trainer would refuse these options; empty if it would not."""
        low, high = self._limits
        if min(self.resolution) < low:
            return [f"min_bucket_reso {low} exceeds the resolution"]
        if max(self.resolution) > high:
            return [f"max_bucket_reso {high} is below the resolution: say max_bucket_reso=N"]
        return []

    @property
    def _limits(self) -> tuple[int, int]:
        """The least and the greatest side, as multiples of the step."""
        step = self.bucket_reso_steps
        return self.min_bucket_reso // step * step, -(-self.max_bucket_reso // step) * step

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """All buckets, in the trainer's order, which decides ties."""
        (low, high), step = self._limits, self.bucket_reso_steps
        area = self.resolution[0] * self.resolution[1]
        square = int(math.sqrt(area) // step) * step
        found = {(square, square)}
        for width in range(low, high + 1, step):
            height = min(high, (area // width) // step * step)
            if height >= low:
                found |= {(height, width), (width, height)}
        return tuple(sorted(found, key=lambda size: size[::-1]))

    def nearest(self, height: int, width: int) -> Size:
        """Return the bucket of a picture. Raises InputImageError if it is smaller than every one."""
        if not self.bucket_no_upscale:
            if (height, width) in self.sizes:
                return height, width
            return _nearest(self.sizes, height, width)
        step, (high, wide) = self.bucket_reso_steps, self.resized(height, width)
        return _not_empty(high - high % step, wide - wide % step, height, width)

    def resized(self, height: int, width: int) -> Size:
        if self.bucket_no_upscale:
            return self._shrunk(height, width)
        size = self.nearest(height, width)
        is_wider = width / height > size[1] / size[0]
        scale = size[0] / height if is_wider else size[1] / width
        return int(height * scale + 0.5), int(width * scale + 0.5)

    def _shrunk(self, height: int, width: int) -> Size:
        area, ratio = self.resolution[0] * self.resolution[1], width / height
        if width * height <= area:
            return height, width
        best_width = math.sqrt(area * ratio)
        rounded_width, rounded_height = self._rounded(best_width), self._rounded(area / best_width)
        by_width = rounded_width / max(1, self._rounded(rounded_width / ratio))
        by_height = self._rounded(rounded_height * ratio) / max(1, rounded_height)
        if abs(by_width - ratio) < abs(by_height - ratio):
            return int(rounded_width / ratio + 0.5), rounded_width
        return rounded_height, int(rounded_height * ratio + 0.5)

    def _rounded(self, side: float) -> int:
        whole = int(side + 0.5)
        return whole - whole % self.bucket_reso_steps


@dataclass(frozen=True)
class MusubiBuckets(_Resizing):
    """musubi-tuner's buckets; its step is 16 for every network that takes these latents.

    >>> MusubiBuckets((1024, 1024)).nearest(683, 1024)
    (832, 1248)
    """

    resolution: Size
    bucket_no_upscale: bool = False
    of: str = "musubi"

    @property
    def step(self) -> int:
        """What all sides are multiples of."""
        return 16

    @property
    def faults(self) -> list[str]:
        """Why the trainer would refuse these options; empty if it would not."""
        least = 2 * self.step
        return [f"a resolution below {least}"] if min(self.resolution) < least else []

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """All buckets, in the trainer's order, which decides ties."""
        area, step = self.resolution[0] * self.resolution[1], self.step
        side, found = int(math.sqrt(area)), set[Size]()
        for width in range(side // 2 // step * step, side + step, step):
            height = area // width // step * step
            found |= {(height, width), (width, height)}
        return tuple(sorted(found, key=lambda size: size[::-1]))

    def nearest(self, height: int, width: int) -> Size:
        """Return the bucket of a picture. Raises InputImageError if it is smaller than every one."""
        area, step = self.resolution[0] * self.resolution[1], self.step
        if self.bucket_no_upscale and height * width <= area:
            return _not_empty(height // step * step, width // step * step, height, width)
        return _nearest(self.sizes, height, width)

    def resized(self, height: int, width: int) -> Size:
        size = self.nearest(height, width)
        scale = max(size[0] / height, size[1] / width)
        return int(height * scale + 0.5), int(width * scale + 0.5)


@dataclass(frozen=True)
class AiToolkitBuckets(_Resizing):
    """ai-toolkit's buckets: as near to a picture's own size and ratio as multiples of ``divisibility`` allow.

    That is the network's, whatever ``bucket_tolerance`` says; 16 for those that take these latents.

    >>> AiToolkitBuckets(1024).nearest(683, 1024)
    (688, 1024)
    """

    resolution: int
    divisibility: int = 16
    square_crop: bool = False
    of: str = "ai-toolkit"

    @property
    def step(self) -> int:
        """What all sides are multiples of."""
        return self.resolution if self.square_crop else self.divisibility

    @property
    def faults(self) -> list[str]:
        """Why the trainer would refuse these options; empty if it would not."""
        return []

    def nearest(self, height: int, width: int) -> Size:
        """Return the bucket of a picture."""
        if self.square_crop:
            return self.resolution, self.resolution
        step, total, most = self.step, width * height, self.resolution**2
        target = min(total, most)
        scale = (target / total) ** 0.5
        wide, high = width * scale / step, height * scale / step
        sides = [
            (rounded(wide) * step, other(high) * step)
            for rounded in (math.floor, math.ceil)
            for other in (math.floor, math.ceil)
        ]
        fitting = [(w, h) for w, h in sides if w > 0 and h > 0 and w * h <= most]
        least = (max(step, math.floor(wide) * step), max(step, math.floor(high) * step))
        found = min(fitting or [least], key=lambda size: abs(size[0] * size[1] - target))
        return found[1], found[0]

    def resized(self, height: int, width: int) -> Size:
        return self.scaled((height, width), self.nearest(height, width))

    @staticmethod
    def scaled(size: Size, bucket: Size) -> Size:
        """Return the size to which a picture is resized for a bucket."""
        scale = max(bucket[1] / size[1], bucket[0] / size[0])
        return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


TrainerBuckets = KohyaBuckets | MusubiBuckets | AiToolkitBuckets
TRAINERS = {kind.of: kind for kind in (KohyaBuckets, MusubiBuckets, AiToolkitBuckets)}
USUAL = (256, 512, 640, 768, 896, 1024, 1280, 1536, 2048)  # resolutions


@lru_cache(1 << 16)
def resolutions_of(trainer: str, size: Size, bucket: Size) -> tuple[int, ...]:
    """Return at which of the usual resolutions a trainer, by its defaults, takes a picture in this bucket.

    >>> resolutions_of("kohya", (683, 1024), (704, 1024)), resolutions_of("kohya", (683, 1024), (680, 1024))
    ((896, 1024), ())
    """
    return tuple(side for side in USUAL if _takes(_by_default(trainer, side), size, bucket))


def _takes(buckets: TrainerBuckets, size: Size, bucket: Size) -> bool:
    try:
        return not buckets.faults and buckets.nearest(*size) == bucket
    except InputImageError:
        return False


@lru_cache(256)
def _by_default(trainer: str, side: int) -> TrainerBuckets:
    if trainer == AiToolkitBuckets.of:
        return AiToolkitBuckets(side)
    return (KohyaBuckets if trainer == KohyaBuckets.of else MusubiBuckets)((side, side))


def parse_buckets(text: str) -> TrainerBuckets:
    """Parse ``TRAINER:RESOLUTION[,OPTION=N...]``, a resolution being N or WxH. Raises ValueError.

    >>> parse_buckets("kohya:768x512,max_bucket_reso=1536,bucket_no_upscale").resolution
    (512, 768)
    """
    match = re.fullmatch(
        r"([a-z-]+):([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?((?:,[a-z_]+(?:=\d{1,5})?)*)", text
    )
    if match is None or match[1] not in TRAINERS:
        names = ", ".join(TRAINERS)
        raise ValueError(
            f"expected TRAINER:SIDE[,OPTION=N], such as kohya:1024, the trainer one of {names}"
        )
    kind, width, height = TRAINERS[match[1]], int(match[2]), int(match[3] or match[2])
    side: Any = (height, width)
    if kind is AiToolkitBuckets:
        if height != width:
            raise ValueError("ai-toolkit takes one number as its resolution")
        side = width
    kinds = {f.name: type(f.default) for f in fields(kind) if f.name not in ("resolution", "of")}
    options: dict[str, Any] = {}
    for item in filter(None, match[4].split(",")):
        name, _, value = item.partition("=")
        if name not in kinds or (kinds[name] is bool) != (not value) or value == "0":
            known = ", ".join(n if k is bool else f"{n}=N" for n, k in kinds.items())
            raise ValueError(f"{item}: expected of {match[1]} {known}")
        options[name] = int(value) if value else True
    buckets: TrainerBuckets = kind(side, **options)
    step = buckets.step
    faults = [f"a step of {step} is no multiple of 8"] if step % 8 else buckets.faults
    if faults:
        raise ValueError(f"{match[1]}: {faults[0]}")
    return buckets


def _nearest(sizes: Iterable[Size], height: int, width: int) -> Size:
    """Return the first size with the least difference of width by height."""
    ratio = width / height
    return min(sizes, key=lambda size: abs(size[1] / size[0] - ratio))


def _not_empty(high: int, wide: int, height: int, width: int) -> Size:
    if not (high and wide):
        raise InputImageError(
            f"a picture of {width} x {height} is smaller than one step of the trainer's buckets"
        )
    return high, wide
