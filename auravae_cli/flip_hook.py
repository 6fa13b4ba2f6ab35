"""Random flips of these latents, for the loader of any trainer. This file needs nothing else: copy it.

    from auravae_cli.flip_hook import RandomFlip

    dataset = dataset.map(RandomFlip(key="latent.npy"))

A flip reverses an axis, and negates the channels that are odd under it: of 16, the channels 12 and 13
if left and right are exchanged, 14 and 15 if top and bottom are. Flip before a shift or a packing of the
values; a scale does not matter.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Latent = TypeVar("Latent", bound=Any)
CONVENTION = "12xee+2xoe+2xeo"  # channels as they behave under h and v: e for even, o for odd


def flip(
    latent: Latent,
    horizontal: bool = True,
    vertical: bool = False,
    representation: str = CONVENTION,
) -> Latent:
    """Return the latent of the mirrored picture, exactly; a copy, even if nothing is flipped.

    ``latent`` is a numpy array or a torch tensor of floating point, [..., C, h, w];
    ``representation`` is what its file or its model says of its C channels.

    Raises ValueError for another number of channels, TypeError for integers.

    >>> import numpy as np
    >>> z = np.zeros((16, 1, 2), np.float32); z[[0, 12, 14]] = [[1, 2]]
    >>> flip(z)[[0, 12, 14], 0].tolist()
    [[2.0, 1.0], [-2.0, -1.0], [2.0, 1.0]]
    """
    runs = [(int(n), kind) for n, kind in re.findall(r"(\d+)x([eo]{2})", representation)]
    channels = sum(n for n, _ in runs)
    if "+".join(f"{n}x{kind}" for n, kind in runs) != representation:
        raise ValueError(f"{representation!r}: expected a representation such as {CONVENTION!r}")
    if latent.ndim < 3 or latent.shape[-3] != channels:
        raise ValueError(f"expected [..., {channels}, h, w], found shape {tuple(latent.shape)}")
    if not _is_floating(latent):
        raise TypeError(f"expected floating point, found {latent.dtype}")
    axes = [axis for axis, wanted in ((-1, horizontal), (-2, vertical)) if wanted]
    flipped: Latent
    if hasattr(latent, "numpy"):  # a tensor, whose `flip` makes a copy
        flipped = latent.flip(axes)
    else:
        backwards = slice(None, None, -1)
        sides = tuple(backwards if axis in axes else slice(None) for axis in (-2, -1))
        flipped = latent[(..., *sides)].copy()
    start = 0
    for number, kind in runs:
        if (horizontal and kind[0] == "o") != (vertical and kind[1] == "o"):
            rows = (..., slice(start, start + number), slice(None), slice(None))
            flipped[rows] = -flipped[rows]
        start += number
    return flipped


class RandomFlip:
    """Flips latents at random: call it with a latent, with a sample, or with a batch of either.

    Args:
        key: the place of the latent in a sample, if samples are tables or tuples.
        horizontal, vertical: the chances of exchanging left and right, or top and bottom.
        representation: of the latents' channels.
        chance: gives a number in [0, 1); `random.random` by default, which a DataLoader of torch seeds
            in each of its workers.

    In a batch, [B, C, h, w] or a list, each latent is flipped or not independently. Other entries of a sample,
    such as masks and crops, stay as they are: with ``key`` you know the flip from `decide` only.
    """

    def __init__(
        self,
        key: str | int | None = None,
        horizontal: float = 0.5,
        vertical: float = 0.0,
        representation: str = CONVENTION,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.key, self.horizontal, self.vertical = key, horizontal, vertical
        self.representation, self.chance = representation, chance

    def decide(self) -> tuple[bool, bool]:
        """Return whether to flip the next latent horizontally, and vertically."""
        return self.chance() < self.horizontal, self.chance() < self.vertical

    def __call__(self, sample: Any) -> Any:
        """Return the same with the latent flipped, or not; ``sample`` itself is left as it is."""
        if self.key is None:
            return self._flipped(sample)
        flipped = self._flipped(sample[self.key])
        if isinstance(sample, Mapping):
            return {**sample, self.key: flipped}
        return type(sample)(
            flipped if place == self.key else item for place, item in enumerate(sample)
        )

    def _flipped(self, latents: Any) -> Any:
        if isinstance(latents, (list, tuple)):
            return [self._flipped(latent) for latent in latents]
        if latents.ndim == 3:
            return flip(latents, *self.decide(), self.representation)
        batch = flip(latents, False, False, self.representation)
        for row in range(len(batch)):
            batch[row] = self._flipped(batch[row])
        return batch


def _is_floating(latent: Any) -> bool:
    """Return whether values have a sign bit of their own, which numpy's words of bfloat16 do not."""
    if hasattr(latent, "is_floating_point"):
        return bool(latent.is_floating_point())
    return getattr(latent.dtype, "kind", "") == "f"
