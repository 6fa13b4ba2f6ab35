"""The service on a socket, until a signal stops it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from auravae_cli.errors import AuraVaeError
from auravae_cli.model.codec import Codec
from auravae_cli.serve.app import app
from auravae_cli.serve.limits import Limits
from auravae_cli.serve.service import codecs_on

CONNECTIONS = 1000  # at once; further ones get 503
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
IDLE = 20.0  # seconds after which a connection without progress is closed


class Connection(H11Protocol):
    """A connection that is closed if its client neither sends a request nor receives the response.

    uvicorn waits for both forever. Bodies have limits of their own (see `bodies`).
    """

    _seen: tuple[object, int] | None = None  # the last request, and the bytes not yet sent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(IDLE, self._look)

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if self.transport.is_closing() and not unsent:
            return
        waits_for_head = self.cycle is None or self.cycle.response_complete
        now = (self.cycle, unsent)
        if now == self._seen and (waits_for_head or unsent):
            self.transport.abort()
            return
        self._seen = now
        self.loop.call_later(IDLE, self._look)


class Server(uvicorn.Server):
    """A server that does not raise the signal again after it has stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free port. Raises AuraVaeError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        place = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else error
        raise AuraVaeError(f"cannot listen on {host} port {port}: {reason}") from error
    # Accepted connections inherit this. asyncio sets it only if a socket names its protocol; without it,
    # the end of each response waits 40 ms.
    place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return place


def address(place: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = place.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_model(
    load: Callable[..., Codec],
    started: Callable[[Codec, str], None],
    *,
    device: str = "auto",
    workers: int = 1,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = Limits(),
    token: str | None = None,
    batch_size: int | None = None,
) -> None:
    """Load a model and serve it until SIGINT or SIGTERM; requests in progress are finished first.

    A second SIGINT ends them, with a KeyboardInterrupt.

    Args:
        load: returns the codec for a ``device``.
        started: called with the codec and the URL when clients can connect.
        device, workers: see `codecs_on`.
        host, port: the address to listen on; port 0 takes a free port.
        limits, token, batch_size: as for `app`.

    Raises:
        AuraVaeError: it cannot listen there. WeightsError, DeviceError: see `load_codec`.
    """
    with listen(host, port) as place:
        codecs = codecs_on(load, device, workers)
        service = app(codecs, limits, token=token, batch_size=batch_size)
        started(codecs[0], address(place))
        answer(service, place, limits.seconds)
        service.state.service.close()


def answer(service: ASGIApp, place: socket.socket, grace: float) -> None:
    """Answer until a signal; then requests in progress have ``grace`` seconds."""
    config = uvicorn.Config(
        service,
        http=cast(Any, Connection),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=max(1, int(grace)),
    )
    server = Server(config)
    server.run(sockets=[place])
    if server.force_exit:
        raise KeyboardInterrupt
