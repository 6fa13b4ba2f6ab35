"""Bodies of requests, read within limits of size and time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request

from auravae_cli.serve.limits import Limits, Quota
from auravae_cli.serve.refusal import Refusal


class Body:
    """The body of a request.

    Its bytes count against ``quota`` until `release`, and so do those of the response.
    """

    def __init__(self, request: Request, limits: Limits, quota: Quota) -> None:
        self._receive, self._limits, self._quota = request.receive, limits, quota
        self._declared = _content_length(request)
        self._is_over = False
        self._reserved = self.received = 0

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            Refusal: the body is too large or too slow, or others have used up the quota.
            ClientDisconnect: the client has gone.
        """
        self._check(self._declared)
        started = time.monotonic()
        chunks: list[bytes] = []
        while not self._is_over:
            try:
                async with asyncio.timeout(self._limits.idle):
                    chunk = await self._next()
            except TimeoutError:
                self._is_over = True
                raise Refusal(
                    408, "the body stopped coming: send it again", connection="close"
                ) from None
            chunks.append(chunk)
            self._quota.take(len(chunk))
            self._reserved += len(chunk)
            self._check(self.received)
            if time.monotonic() - started > self._limits.transfer_seconds(self.received):
                raise Refusal(408, "the body comes too slowly", connection="close")
        return b"".join(chunks)

    def reserve_response(self, size: int) -> None:
        """Count the bytes of a response. It exists already, so it is never refused."""
        self._reserved += size
        self._quota.used += size

    async def discard_rest(self) -> None:
        """Receive what the client still sends: most clients read the response only after sending everything."""
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(self._limits.idle):
                while not self._is_over:
                    await self._next()

    def release(self) -> None:
        """Give back what was counted."""
        self._quota.give_back(self._reserved)
        self._reserved = 0

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._is_over = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        self.received += len(chunk)
        return chunk

    def _check(self, size: int) -> None:
        if size > self._limits.body:
            raise Refusal(
                413,
                f"a body of {size} bytes or more: this service takes {self._limits.body} (--max-body)",
                connection="close",
            )


def _content_length(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdecimal() and len(length) < 19 else 0


async def wait_until_gone(request: Request) -> None:
    """Return when the client has gone; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
