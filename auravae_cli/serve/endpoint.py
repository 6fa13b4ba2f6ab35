"""One path of the service: access, query, body, handler, response."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from auravae_cli.serve.access import check_access
from auravae_cli.serve.bodies import Body, wait_until_gone
from auravae_cli.serve.parameters import Parameter, read_query
from auravae_cli.serve.refusal import Refusal, refusal_of
from auravae_cli.serve.service import Service

PIECE = 1 << 18  # bytes that are sent at once
GONE = 499  # status in the metrics: the client disconnected before it had the response
# Of every response: what browsers must not guess, send on, or let other sites embed.
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
log = logging.getLogger("auravae.serve")


@dataclass(frozen=True)
class Call:
    """A request as its handler sees it: body, parameters, and the ``Accept`` header."""

    service: Service
    body: bytes
    query: Mapping[str, Any]
    accept: str


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A path, its documentation, and its handler.

    ``takes`` and ``gives`` are media types. ``is_open``: it needs no token. ``is_light``: it does not
    count against the limit on requests.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    parameters: tuple[Parameter, ...] = ()
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ("application/json",)
    ignores_unknown: bool = False
    is_open: bool = False
    is_light: bool = False


class Serving:
    """An endpoint with its service, as an ASGI application."""

    def __init__(self, endpoint: Endpoint, service: Service) -> None:
        self.endpoint, self.service = endpoint, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = Body(request, self.service.limits, self.service.bodies)
        started, status, sent = time.perf_counter(), GONE, 0
        try:
            response = await self._respond(request, body)
            response.headers.update(HEADERS)
            size = len(response.body)
            body.reserve_response(size)
            async with asyncio.timeout(self.service.limits.transfer_seconds(size)):
                await send_in_pieces(response, send)
            status, sent = response.status_code, size
        except (ClientDisconnect, TimeoutError):
            return  # the server closes the connection
        finally:
            body.release()
            seconds = time.perf_counter() - started
            self.service.metrics.count_request(
                self.endpoint.path, status, seconds, body.received, sent
            )
        await body.discard_rest()
        await send({"type": "http.response.body"})

    async def _respond(self, request: Request, body: Body) -> Response:
        """Return the response, which may be a refusal. Raises ClientDisconnect."""
        try:
            async with asyncio.timeout(self.service.limits.seconds):
                if not self.endpoint.is_open:
                    check_access(request, self.service.token)
                query = read_query(
                    self.endpoint.parameters,
                    request.query_params,
                    ignores_unknown=self.endpoint.ignores_unknown,
                )
                content = await body.read()
                call = Call(self.service, content, query, request.headers.get("accept", ""))
                if self.endpoint.is_light:
                    return await self.endpoint.handler(call)
                with self.service.requests.reserved(1):
                    return await cancelled_if_gone(request, self.endpoint.handler(call))
        except ClientDisconnect:
            raise
        except asyncio.CancelledError:  # by the server, which has waited long enough
            return Refusal(503, "the service stops: try again later", connection="close").response()
        except Exception as error:
            return self._refused(error)

    def _refused(self, error: Exception) -> Response:
        """Return the response to an error; bugs are logged."""
        refusal = refusal_of(error)
        if refusal.status == 429:
            refusal.headers["retry_after"] = self.service.retry_after()
        if refusal.status == 500:
            log.error("%s %s failed", self.endpoint.method, self.endpoint.path, exc_info=error)
        return refusal.response()


async def send_in_pieces(response: Response, send: Send) -> None:
    """Send all but the end of a response. A piece is sent when most of those before it have left."""
    head = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **head})
    content = memoryview(response.body)
    for start in range(0, len(content), PIECE):
        piece = bytes(content[start : start + PIECE])
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def cancelled_if_gone(request: Request, work: Awaitable[Response]) -> Response:
    """Return the result of ``work``, which is cancelled if the client goes first.

    Raises ClientDisconnect.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_until_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for waiting in (task, gone):
            waiting.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
        del task, gone  # the traceback of an error holds this frame, which must not hold the error
