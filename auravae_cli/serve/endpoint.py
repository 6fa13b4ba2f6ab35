"""One path of the service: who may ask, the body, the handler, and what the client is told."""

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
from auravae_cli.serve.refusal import refusal_of
from auravae_cli.serve.service import Service

PIECE = 1 << 18  # bytes that are sent at once
GONE = 499  # in the counts: the client did not wait for its answer
log = logging.getLogger("auravae.serve")


@dataclass(frozen=True)
class Call:
    """What a handler gets of a request: its body, its parameters, and the ``Accept`` header."""

    service: Service
    body: bytes
    query: Mapping[str, Any]
    accept: str


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A path, as it is documented and as it works: an ASGI application once it has a service.

    ``takes`` and ``gives`` are media types; ``is_open`` ones need no token; ``is_light`` ones no place
    among the requests that are under way.
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
    """An endpoint at work on a service."""

    def __init__(self, endpoint: Endpoint, service: Service) -> None:
        self.endpoint, self.service = endpoint, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = Body(request, self.service.limits, self.service.bodies)
        started, status, sent = time.perf_counter(), GONE, 0
        try:
            response = await self._answer(request, body)
            size = len(response.body)
            body.answer(size)
            async with asyncio.timeout(self.service.limits.patience(size)):
                await deliver(response, send)
            status, sent = response.status_code, size
        except (ClientDisconnect, TimeoutError):
            pass  # nobody waits: the server ends the connection
        finally:
            seconds = time.perf_counter() - started
            self.service.metrics.answered(self.endpoint.path, status, seconds, body.received, sent)
            body.release()

    async def _answer(self, request: Request, body: Body) -> Response:
        """The response, or the refusal. Raises ClientDisconnect."""
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
                with self.service.requests.borrowed(1):
                    return await unless_gone(request, self.endpoint.handler(call))
        except ClientDisconnect:
            raise
        except Exception as error:
            return self._refused(error)

    def _refused(self, error: Exception) -> Response:
        """What the client is told of an error. A bug is logged."""
        refusal = refusal_of(error)
        if refusal.status == 429:
            refusal.headers["retry_after"] = self.service.retry_after()
        if refusal.status == 500:
            log.error("%s %s failed", self.endpoint.method, self.endpoint.path, exc_info=error)
        return refusal.response()


async def deliver(response: Response, send: Send) -> None:
    """Send a response in pieces, each when the client has taken most of those before."""
    head = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **head})
    content = memoryview(response.body)
    for start in range(0, max(1, len(content)), PIECE):
        piece, goes_on = bytes(content[start : start + PIECE]), start + PIECE < len(content)
        await send({"type": "http.response.body", "body": piece, "more_body": goes_on})


async def unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """What ``work`` gives; where the client goes away first, it is cancelled.

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
        del task, gone  # an error's traceback holds this frame, and must not hold itself by it
