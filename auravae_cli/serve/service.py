"""The state that all requests share: the model with its queue, threads, quotas and metrics."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import read_size
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.machine.prefetch import default_workers
from auravae_cli.model.codec import Codec
from auravae_cli.serve.lanes import Lanes, Run, Turn
from auravae_cli.serve.limits import TOGETHER, Limits, Quota
from auravae_cli.serve.metrics import Metrics
from auravae_cli.serve.refusal import Refusal

Floats = NDArray[np.float32]
Result = TypeVar("Result")


class Service:
    """A model on one or more devices, and everything that its clients share."""

    def __init__(
        self, codecs: Sequence[Codec], limits: Limits, token: str | None, batch_size: int | None
    ) -> None:
        self.codec, self.limits, self.token = codecs[0], limits, token
        self.metrics = Metrics()
        self.lanes = Lanes(
            codecs,
            batch_size or self.codec.batch_size,
            limits.linger,
            self.metrics.count_batch,
        )
        self._threads = ThreadPoolExecutor(default_workers(), "auravae-serve")
        self._speed = len(codecs)
        self.requests = Quota("requests", limits.requests)
        self.bodies = Quota("bytes of bodies", TOGETHER * limits.body)
        self.pixels = Quota("pixels", TOGETHER * limits.pixels)

    @property
    def space(self) -> LatentSpace:
        """The latent space of the model."""
        return self.codec.space

    def close(self) -> None:
        """Finish what is in progress, and end all threads."""
        self.lanes.close()
        self._threads.shutdown()

    def check_pixels(self, number: int) -> int:
        """Return the number. Raises Refusal (413) if a picture of that many pixels is too large."""
        if number > self.limits.pixels:
            raise Refusal(
                413,
                f"{number} pixels: more than the {self.limits.pixels} that this service takes "
                "(--max-pixels)",
            )
        return number

    async def picture_pixels(self, file: bytes, preparation: Preparation = Preparation()) -> int:
        """Return the number of pixels of a picture file, from its header: as read or as prepared, whichever is larger.

        Raises Refusal (413), InputImageError.
        """

        def counted() -> int:
            height, width = read_size(file, max_pixels=None)
            return max(height * width, math.prod(preparation.size(height, width)))

        return self.check_pixels(await self.in_thread(counted))

    def in_thread(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """Run a function in a thread: whatever takes more than a moment and no model."""
        # The pool keeps cancelled work until a thread is free, so it must not hold pictures.
        work: list[Callable[[], Result]] = [partial(function, *arguments)]
        future = self._threads.submit(_run_last, work)
        future.add_done_callback(lambda _: work.clear())
        return asyncio.wrap_future(future)

    async def encode(self, images: Floats, then: Callable[[Floats], Result]) -> list[Result]:
        """Encode pixels [B, 3, H, W]; return ``then(latent)`` for each, which runs in a thread."""
        return await self._in_turns(encode_all, images, images[0, 0].size, then)

    async def decode(self, latents: Floats, then: Callable[[Floats], Result]) -> list[Result]:
        """Decode latents [B, C, h, w]; return ``then(image)`` for each [3, f*h, f*w]. See `Codec.decode_finite`."""
        pixels = latents[0, 0].size * self.space.downsampling_factor**2
        return await self._in_turns(decode_all, latents, pixels, then)

    async def _in_turns(
        self, run: Run, items: Floats, pixels: int, then: Callable[[Floats], Result]
    ) -> list[Result]:
        """Run each item in a turn; few at a time, so that turns of other requests come between."""
        if len(items) > self.limits.items:
            raise Refusal(
                413, f"{len(items)} items in one request: expected at most {self.limits.items}"
            )
        at_once, results = self.lanes.batch_size * self._speed, []
        for start in range(0, len(items), at_once):
            some = items[start : start + at_once]
            turns = await asyncio.gather(*(self.turn(run, one.shape, one, pixels) for one in some))
            while turns:
                results.append(await self.in_thread(then, turns.pop(0)))
        return results

    def turn(self, run: Run, shape: Any, item: Any, pixels: int) -> asyncio.Future[Any]:
        """Queue a turn in the model. Cancelling the future removes it from the queue."""
        future = self.lanes.submit(Turn(run, shape, item), pixels > self.limits.small)
        return asyncio.wrap_future(future)

    def retry_after(self) -> str:
        """Estimate the seconds until half of the requests in progress are done."""
        mean = self.metrics.mean_seconds()
        return str(max(1, math.ceil(self.requests.used * mean / 2 / self._speed)))


def _run_last(work: list[Callable[[], Result]]) -> Result:
    return work.pop()()


def encode_all(codec: Codec, images: list[Floats]) -> Floats:
    """Encode a batch of pictures of equal shape."""
    latents: Floats = codec.encode_unit(np.stack(images) if len(images) > 1 else images[0][None])
    return latents


def decode_all(codec: Codec, latents: list[Floats]) -> Floats:
    """Decode a batch of latents of equal shape."""
    return codec.decode_finite(np.stack(latents))


def codecs_on(load: Callable[..., Codec], device: str, number: int) -> list[Codec]:
    """Return ``number`` codecs: on a CPU the same one, otherwise one per GPU, starting with ``device``.

    Raises what ``load`` raises.
    """
    first = load(device=device)
    if first.device == "cpu":
        return [first] * number
    kind, _, place = first.device.partition(":")
    start = int(place or 0)
    return [first, *(load(device=f"{kind}:{n}") for n in range(start + 1, start + number))]
