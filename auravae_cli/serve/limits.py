"""What the service lets a client, and all of them together, take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from auravae_cli.serve.refusal import Refusal

SLOWEST = 50_000  # bytes a second that a client has to send or take, once it had its time to start
TOGETHER = 8  # bodies, and pictures, of the largest size that are held at once


@dataclass(frozen=True)
class Limits:
    """Of one request: ``body`` bytes, ``pixels``, ``seconds`` from its first byte to the last of the
    answer, ``start`` seconds without a byte. ``requests`` may be under way together, waiting or at
    work; of ``small`` pixels and fewer, none waits for a larger one. A batch waits ``linger``
    seconds for others of its shape.
    """

    body: int = 64 << 20
    pixels: int = 1 << 24
    seconds: float = 300
    start: float = 20
    requests: int = 128
    small: int = 1 << 20
    linger: float = 0.004

    def patience(self, size: int) -> float:
        """The seconds in which a client has to send or take so many bytes."""
        return min(self.seconds, self.start + size / SLOWEST)


class Share:
    """Something of which there is so much for all requests; what is lent comes back."""

    def __init__(self, name: str, most: int) -> None:
        self.name, self.most, self.lent = name, most, 0

    def take(self, amount: int) -> None:
        """Raise Refusal (429) where it is not there now."""
        if self.lent and self.lent + amount > self.most:
            raise Refusal(429, f"the service is busy (as many {self.name} as it takes): try again")
        self.lent += amount

    def give(self, amount: int) -> None:
        """Give back."""
        self.lent -= amount

    @contextmanager
    def borrowed(self, amount: int) -> Iterator[None]:
        """So much of it while the block runs. Raises Refusal."""
        self.take(amount)
        try:
            yield
        finally:
            self.give(amount)
