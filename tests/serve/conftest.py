"""What the tests of the service share: one on loopback, in this process, and a plain client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from auravae_cli import load_codec
from auravae_cli.serve.app import app
from auravae_cli.serve.limits import Limits
from auravae_cli.serve.server import Connection, listen

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence, of which there is always one."""
        (key,) = self.json
        assert key == "error" and "Traceback" not in self.json[key]
        return self.json[key]


class Running:
    """A service on loopback."""

    def __init__(self, application: Any, port: int, server: uvicorn.Server) -> None:
        self.service, self.port, self.server = application.state.service, port, server
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named)
            answer = connection.getresponse()
            given = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read(), given)
        finally:
            connection.close()

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def waits_until(self, holds: Callable[[], bool]) -> None:
        """Return when something holds; fail where it never does."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.005)


@contextmanager
def running(application: Any) -> Iterator[Running]:
    """The application at work, until the block ends."""
    with listen("127.0.0.1", 0) as place:
        config = uvicorn.Config(
            application, http=Connection, log_config=None, ws="none", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        port = place.getsockname()[1]
        thread.start()
        try:
            yield Running(application, port, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            application.state.service.close()
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def linear():
    """The model that needs no torch."""
    return load_codec("linear")


@pytest.fixture(scope="module")
def service(linear) -> Iterator[Running]:
    """One that answers at once."""
    with running(app(linear)) as found:
        yield found


@pytest.fixture
def start(linear) -> Iterator[Callable[..., Running]]:
    """Start others: ``start(codec=..., limits=Limits(...), token=...)``."""
    contexts = []

    def begin(codec: Any = None, limits: Limits = Limits(), **options: Any) -> Running:
        context = running(app(codec or linear, limits, **options))
        contexts.append(context)
        return context.__enter__()

    yield begin
    for context in reversed(contexts):
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def coffee() -> bytes:
    """A photograph."""
    return (REPOSITORY / "samples" / "coffee.jpg").read_bytes()
