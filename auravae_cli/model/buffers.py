"""Memory for feature maps, used again and again.

The first touch of new pages costs a third of the time of the convolution that fills them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from auravae_cli.model.rows import Rows


class Buffers:
    """Memory that no map uses at the moment."""

    def __init__(self) -> None:
        self._spare: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        """The bytes that lie ready."""
        return sum(spare.nbytes for spare in self._spare)

    def take(self, like: Rows, limit: int) -> Tensor:
        """Memory for such a map, not cleared: a spare piece of up to twice its size, else new.

        ``limit`` is what this and the spare memory may take together, in bytes.
        """
        count = math.prod(like.shape)
        if self.nbytes + count * like.dtype.itemsize > limit:
            self.clear()
        fitting = [
            spare
            for spare in self._spare
            if (spare.dtype, spare.device) == (like.dtype, like.device)
            and count <= len(spare) <= 2 * count
        ]
        if not fitting:
            return like.empty(like.shape)
        best = min(fitting, key=len)
        self._spare = [spare for spare in self._spare if spare is not best]
        return best[:count].view(like.shape)

    def clear(self) -> None:
        """Give all spare memory back."""
        self._spare.clear()

    def give(self, values: Tensor) -> None:
        """Memory whose features nobody needs any more."""
        flat = torch.empty(0, dtype=values.dtype, device=values.device)
        self._spare.append(flat.set_(values.untyped_storage()))
