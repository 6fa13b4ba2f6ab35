"""Bodies of requests, read within limits of size and time."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request

from auravae_cli.serve.limits import Limits, Share
from auravae_cli.serve.refusal import Refusal


class Body:
    """The bytes that a client sends, and those that it is to take.

    What they take of the ``share`` is given back by `release`.
    """

    def __init__(self, request: Request, limits: Limits, share: Share) -> None:
        self._request, self._limits, self._share = request, limits, share
        self.received = self._sent = 0

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            Refusal: too large, too slow, or too many others. ClientDisconnect: cut short.
        """
        self._check(self._declared())
        started = time.monotonic()
        chunks: list[bytes] = []
        stream = self._request.stream()
        while True:
            try:
                async with asyncio.timeout(self._limits.start):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise Refusal(
                    408, "the body stopped coming: send it again", connection="close"
                ) from None
            if chunk is None:
                return b"".join(chunks)
            chunks.append(chunk)
            self._share.take(len(chunk))
            self.received += len(chunk)
            self._check(self.received)
            if time.monotonic() - started > self._limits.patience(self.received):
                raise Refusal(408, "the body comes too slowly", connection="close")

    def answer(self, size: int) -> None:
        """So many bytes are to be sent: they are there already, so nothing refuses them."""
        self._sent = size
        self._share.lent += size

    def release(self) -> None:
        """Give back what both took."""
        self._share.give(self.received + self._sent)

    def _declared(self) -> int:
        length = self._request.headers.get("content-length", "0")
        return int(length) if length.isdecimal() and len(length) < 19 else 0

    def _check(self, size: int) -> None:
        if size > self._limits.body:
            raise Refusal(
                413,
                f"a body of {size} bytes or more: this service takes {self._limits.body} (--max-body)",
                connection="close",
            )


async def wait_until_gone(request: Request) -> None:
    """Return when the client has gone away; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
