"""The model behind the service: turns in its lanes, threads for everything else, and the counts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.machine.prefetch import default_workers
from auravae_cli.model.codec import Codec
from auravae_cli.serve.lanes import Lanes, Run, Turn
from auravae_cli.serve.limits import TOGETHER, Limits, Share
from auravae_cli.serve.metrics import Metrics
from auravae_cli.serve.refusal import Refusal

Floats = NDArray[np.float32]
Result = TypeVar("Result")


class Service:
    """A model on one or more devices, and what its clients share."""

    def __init__(
        self, codecs: Sequence[Codec], limits: Limits, token: str | None, batch_size: int | None
    ) -> None:
        self.codec, self.limits, self.token = codecs[0], limits, token
        self.metrics = Metrics()
        self.lanes = Lanes(
            codecs,
            batch_size or self.codec.batch_size,
            limits.linger,
            self.metrics.ran,
        )
        self._threads = ThreadPoolExecutor(default_workers(), "auravae-serve")
        self._speed = len(codecs)
        self.requests = Share("requests", limits.requests)
        self.bodies = Share("bytes of bodies", TOGETHER * limits.body)
        self.pixels = Share("pixels", TOGETHER * limits.pixels)

    @property
    def space(self) -> LatentSpace:
        """The latent space that is served."""
        return self.codec.space

    def close(self) -> None:
        """Finish what is under way, and end all threads."""
        self.lanes.close()
        self._threads.shutdown()

    def check_pixels(self, number: int) -> int:
        """The number. Raises Refusal (413) where a picture of so many pixels is too large."""
        if number > self.limits.pixels:
            raise Refusal(
                413,
                f"{number} pixels: more than the {self.limits.pixels} that this service takes "
                "(--max-pixels)",
            )
        return number

    def pixels_of(self, shape: tuple[int, ...], factor: int) -> int:
        """Like `check_pixels`, for what a latent [..., h, w] is decoded to."""
        return self.check_pixels(shape[-2] * shape[-1] * factor**2)

    async def aside(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """``function(*arguments)`` in a thread: whatever takes more than a moment and no model."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*arguments))

    async def encode(self, padded: Floats) -> Floats:
        """Pixels [3, H, W] => a latent, when its turn comes; see `Codec.encode`."""
        latent: Floats = await self.turn(encode_all, padded.shape, padded, padded[0].size)
        return latent

    async def decode(self, latent: Floats) -> Floats:
        """A latent [C, h, w] => pixels [3, f*h, f*w], likewise; see `Codec.decode_finite`."""
        pixels = latent[0].size * self.space.downsampling_factor**2
        image: Floats = await self.turn(decode_all, latent.shape, latent, pixels)
        return image

    async def turn(self, run: Run, shape: Any, item: Any, pixels: int) -> Any:
        """The result of a turn in the model. Who stops waiting for it takes it out of the queue."""
        future = self.lanes.submit(Turn(run, shape, item), pixels > self.limits.small)
        return await asyncio.wrap_future(future)

    def retry_after(self) -> str:
        """Seconds until half of what is under way is done, about."""
        mean = self.metrics.mean_seconds()
        return str(max(1, math.ceil(self.requests.lent * mean / 2 / self._speed)))


def encode_all(codec: Codec, images: list[Floats]) -> Floats:
    """A batch of pictures of one padded size."""
    latents: Floats = codec.encode(np.stack(images) if len(images) > 1 else images[0][None])
    return latents


def decode_all(codec: Codec, latents: list[Floats]) -> Floats:
    """A batch of latents of one shape."""
    return codec.decode_finite(np.stack(latents))


def codecs_on(load: Callable[..., Codec], device: str, number: int) -> list[Codec]:
    """``number`` codecs: on a CPU one that all share, else one on each GPU from that of ``device``.

    Raises what ``load`` does.
    """
    first = load(device=device)
    if first.device == "cpu":
        return [first] * number
    kind, _, place = first.device.partition(":")
    start = int(place or 0)
    return [first, *(load(device=f"{kind}:{n}") for n in range(start + 1, start + number))]
