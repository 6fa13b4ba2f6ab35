"""Limits on one request, and quotas for all requests together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from auravae_cli.serve.refusal import Refusal

SLOWEST = 50_000  # bytes a second: slower clients are disconnected
TOGETHER = 8  # bodies, and pictures, of the largest size that are held at once


@dataclass(frozen=True)
class Limits:
    """Limits of the service.

    Of one request: ``body`` bytes, ``pixels`` of a picture, ``items`` latents or pictures, ``seconds``
    from its first byte to the last one of the response, and ``idle`` seconds without a byte. At most
    ``requests`` are in progress, queued or running. Pictures of up to ``small`` pixels never wait for
    larger ones. A batch waits ``linger`` seconds for further items of its shape.
    """

    body: int = 64 << 20
    pixels: int = 1 << 24
    items: int = 64
    seconds: float = 300
    idle: float = 20
    requests: int = 128
    small: int = 1 << 20
    linger: float = 0.004

    def transfer_seconds(self, size: int) -> float:
        """The seconds that a client has to send or receive this many bytes."""
        return min(self.seconds, self.idle + size / SLOWEST)


class Quota:
    """An amount that all requests share."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit, self.used = name, limit, 0

    def take(self, amount: int) -> None:
        """Reserve an amount. One request may exceed the limit alone. Raises Refusal (429)."""
        if self.used and self.used + amount > self.limit:
            raise Refusal(429, f"the service is busy (its limit on {self.name}): try again")
        self.used += amount

    def give_back(self, amount: int) -> None:
        """Release an amount."""
        self.used -= amount

    @contextmanager
    def reserved(self, amount: int) -> Iterator[None]:
        """Reserve an amount while the block runs. Raises Refusal (429)."""
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)
