"""Clients that are slow, vanish, send too much or too many; and who may ask."""

from __future__ import annotations

import base64
import gc
import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from auravae_cli.serve import server
from auravae_cli.serve.endpoint import Call
from auravae_cli.serve.lanes import Turn
from auravae_cli.serve.limits import Limits

PATIENCE = 30
SHAPE = "shape=16&shape=1&shape=1&dtype=float16&output_type=pt"
LATENT = bytes(32)
TOKEN = "s\xebcret"
SENT = TOKEN.encode().decode("latin-1")  # headers are bytes, which http.client takes as latin-1
LARGE = "shape=16&shape=160&shape=160&dtype=float16&output_type=pt", bytes(2 * 16 * 160 * 160)


@dataclass
class Gated:
    """A model that waits at a gate before it decodes."""

    model: Any

    def __post_init__(self) -> None:
        self.gate, self.begun, self.count = threading.Event(), threading.Semaphore(0), 0

    def encode(self, images: Any) -> Any:
        return self.model.encode(images)

    def decode(self, latents: Any) -> Any:
        self.count += len(latents)
        self.begun.release()
        assert self.gate.wait(PATIENCE)
        return self.model.decode(latents)


@pytest.fixture
def gated(linear) -> Iterator[Gated]:
    model = Gated(linear.autoencoder)
    yield model
    model.gate.set()


@pytest.fixture
def slow(linear, gated):
    """A codec whose decoder waits."""
    return replace(linear, autoencoder=gated)


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, running: Any, path: str, body: bytes) -> None:
        super().__init__(daemon=True)
        self.running, self.path, self.body = running, path, body
        self.start()

    def run(self) -> None:
        self.answer = self.running.post(self.path, self.body)

    def result(self) -> Any:
        self.join(PATIENCE)
        return self.answer


@contextmanager
def raw(running: Any, head: str, body: bytes = b"") -> Iterator[socket.socket]:
    """A connection by hand."""
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + body)
        yield connection


def counted(running: Any, status: int) -> int:
    """How many requests for /decode have ended so."""
    text = running.get("/metrics").body.decode()
    rows = [
        r for r in text.splitlines() if f'requests_total{{path="/decode",status="{status}"' in r
    ]
    return int(rows[0].split()[-1]) if rows else 0


def test_more_requests_than_the_queue_takes_are_told_when_to_come_again(start, slow, gated):
    running = start(slow, Limits(requests=2))
    asked = [Asking(running, f"/decode?{SHAPE}", LATENT) for _ in range(2)]
    assert gated.begun.acquire(timeout=PATIENCE)
    running.waits_until(lambda: running.service.requests.used == 2)
    refused = running.post(f"/decode?{SHAPE}", LATENT)
    assert refused.status == 429 and "busy (its limit on requests" in refused.error
    assert int(refused.headers["retry-after"]) >= 1
    assert running.get("/health").status == 200
    gated.gate.set()
    assert [a.result().status for a in asked] == [200, 200]
    assert running.post(f"/decode?{SHAPE}", LATENT).status == 200


def test_bodies_that_do_not_fit_together_are_refused(start, slow, gated):
    running = start(slow, Limits(body=100))
    running.service.bodies.limit = 60
    asked = Asking(running, f"/decode?{SHAPE}", LATENT)
    assert gated.begun.acquire(timeout=PATIENCE)
    refused = running.post(f"/decode?{SHAPE}", LATENT)
    assert refused.status == 429 and "bytes of bodies" in refused.error
    gated.gate.set()
    assert asked.result().status == 200
    running.waits_until(lambda: running.service.bodies.used == 0)


def test_a_large_picture_holds_no_small_one_up(start, slow, gated):
    running = start(slow)
    large = Asking(running, f"/decode?{LARGE[0]}", LARGE[1])
    assert gated.begun.acquire(timeout=PATIENCE)
    small = Asking(running, f"/decode?{SHAPE}", LATENT)
    assert gated.begun.acquire(timeout=PATIENCE), "it waits behind the large one"
    gated.gate.set()
    assert small.result().status == large.result().status == 200


def test_many_latents_in_one_request_hold_no_others_up(start, slow, gated):
    running = start(slow)
    many = Asking(running, f"/decode?shape=9&{SHAPE}", 9 * LATENT)
    assert gated.begun.acquire(timeout=PATIENCE)
    assert running.service.lanes.waiting == 0
    one = Asking(running, f"/decode?{SHAPE}", LATENT)
    running.waits_until(lambda: running.service.lanes.waiting == 1)
    gated.gate.set()
    assert (one.result().status, len(many.result().body)) == (200, 9 * len(one.result().body))


def test_a_request_has_so_many_latents(start):
    running = start(limits=Limits(items=2))
    assert running.post(f"/decode?shape=2&{SHAPE}", 2 * LATENT).status == 200
    answer = running.post(f"/decode?shape=3&{SHAPE}", 3 * LATENT)
    assert (answer.status, answer.error) == (413, "3 items in one request: expected at most 2")


def test_whoever_goes_away_takes_the_work_along(start, slow, gated):
    running = start(slow)
    first = Asking(running, f"/decode?{SHAPE}", LATENT)
    assert gated.begun.acquire(timeout=PATIENCE)
    head = f"POST /decode?{SHAPE} HTTP/1.1\nHost: x\nContent-Length: 32\n\n"
    with raw(running, head, LATENT):
        running.waits_until(lambda: running.service.lanes.waiting == 1)
    running.waits_until(lambda: running.service.lanes.waiting == 0)
    gated.gate.set()
    assert first.result().status == 200
    running.waits_until(lambda: counted(running, 499) == 1)
    assert gated.count == 1
    assert running.service.requests.used == running.service.pixels.used == 0


def test_a_request_has_so_much_time(start, slow, gated):
    running = start(slow, Limits(seconds=0.3))
    answer = running.post(f"/decode?{SHAPE}", LATENT)
    assert answer.status == 503 and answer.error.startswith("the time for a request is up")
    gated.gate.set()


def test_a_body_that_is_too_large_is_refused(start):
    running = start(limits=Limits(body=100))
    answer = running.post(f"/decode?{SHAPE}", bytes(101))
    assert answer.status == 413 and "this service takes 100" in answer.error
    head = "POST /decode HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n"
    with raw(running, head, b"64\r\n" + bytes(100) + b"\r\n1\r\n0\r\n") as connection:
        assert b"413" in connection.recv(1000)


@pytest.mark.parametrize("close", ["", "Connection: close\n"])
@pytest.mark.parametrize(("query", "status"), [("", 413), ("shape=x", 400)])
def test_a_refusal_arrives_although_the_client_sends_on(start, close, query, status):
    """Most clients read nothing before they have sent all; a reset would take the sentence from them."""
    running = start(limits=Limits(body=1000))
    size = 8 << 20  # more than the buffers of both sides hold
    head = f"POST /decode?{query} HTTP/1.1\nHost: x\n{close}Content-Length: {size}\n\n"
    with raw(running, head) as connection:
        time.sleep(0.1)  # the refusal is there, and a server that closes would have
        connection.sendall(bytes(size))
        assert f" {status} ".encode() in connection.recv(100)
    running.waits_until(lambda: running.service.bodies.used == 0)


def test_a_body_that_stops_coming_is_given_up(start):
    running = start(limits=Limits(idle=0.2))
    head = f"POST /decode?{SHAPE} HTTP/1.1\nHost: x\nContent-Length: 32\n\n"
    with raw(running, head, bytes(31)) as connection:
        assert b"408" in connection.recv(1000)
    running.waits_until(lambda: running.service.bodies.used == 0)


def test_a_body_that_trickles_is_given_up(start):
    running = start(limits=Limits(idle=0.2))
    head = f"POST /decode?{SHAPE} HTTP/1.1\nHost: x\nContent-Length: 3200\n\n"
    with raw(running, head) as connection:
        connection.settimeout(0.02)
        end, answer = time.monotonic() + PATIENCE, b""
        while time.monotonic() < end and not answer:
            try:
                connection.sendall(b"x")
                answer = connection.recv(1000)
            except TimeoutError:
                pass
        assert b"too slowly" in answer or b"408" in answer


def test_a_body_cut_short_is_no_error_of_ours(start, caplog):
    running = start()
    head = f"POST /decode?{SHAPE} HTTP/1.1\nHost: x\nContent-Length: 32\n\n"
    for _ in range(5):
        with raw(running, head, bytes(7)) as connection:
            linger = struct.pack("ii", 1, 0)  # a reset, as of a machine that went down
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    running.waits_until(lambda: counted(running, 499) == 5)
    running.waits_until(lambda: running.service.bodies.used == 0)
    assert [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []


def test_what_waits_for_a_thread_keeps_no_picture_of_clients_that_went_away(start, coffee):
    running = start()
    gate, threads = threading.Event(), running.service._threads
    for _ in range(threads._max_workers):
        threads.submit(gate.wait, PATIENCE)
    head = f"POST /v1/info HTTP/1.1\nHost: x\nContent-Length: {len(coffee)}\n\n"
    try:
        with raw(running, head, coffee):
            running.waits_until(lambda: threads._work_queue.qsize() == 1)
        running.waits_until(lambda: running.service.requests.used == 0)
        held = [item for item in gc.get_objects() if type(item) is Call]
        assert [call for call in held if call.service is running.service] == []
    finally:
        gate.set()


def test_a_steady_client_keeps_its_connection():
    """The memory of a request may be that of the one before, which is no sign of an idle client."""

    class Cycle:
        response_complete = True

    connection = server.Connection.__new__(server.Connection)
    connection.loop = connection.transport = Mock()
    connection.transport.get_write_buffer_size.return_value = 0
    connection.transport.is_closing.return_value = False
    for _ in range(100):
        connection.cycle = Cycle()
        connection.cycle = Cycle()  # where the one before the last was
        connection._look()
    connection.transport.abort.assert_not_called()
    connection._look()
    connection.transport.abort.assert_called_once()


def test_a_head_that_does_not_come_is_given_up(start, monkeypatch):
    monkeypatch.setattr(server, "IDLE", 0.1)
    running = start()
    for begun in ("", "GET / HTTP/1.1\nHost:"):
        with raw(running, begun) as connection:
            assert connection.recv(1) == b""


def test_an_answer_that_nobody_takes_is_given_up(start, monkeypatch):
    monkeypatch.setattr(server, "IDLE", 0.3)
    running = start()
    shape = "shape=16&shape=128&shape=128&dtype=float32&output_type=pt"
    size = 4 * 16 * 128 * 128
    head = f"POST /decode?{shape} HTTP/1.1\nHost: x\nContent-Length: {size}\n\n"
    with raw(running, head, bytes(size)) as connection:
        running.waits_until(lambda: running.service.bodies.used > size)
        running.waits_until(lambda: running.service.bodies.used == 0)
        taken = 0
        with suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                taken += len(part)
    assert taken < 4 * 3 * 1024 * 1024
    assert running.get("/health").status == 200


def test_a_bug_is_told_without_its_traceback_and_logged(start, linear, caplog):
    class Broken:
        def decode(self, latents: Any) -> Any:
            raise ZeroDivisionError("secret detail")

    running = start(replace(linear, autoencoder=Broken()))
    answer = running.post(f"/decode?{SHAPE}", LATENT)
    assert answer.status == 500
    assert answer.error == "an error of the service itself; its log says more"
    assert "secret detail" in caplog.text
    assert running.get("/health").status == 200


def test_what_the_model_makes_of_nothing_finite_is_told(start, linear):
    class Nan:
        def decode(self, latents: Any) -> Any:
            return np.full((len(latents), 3, 8, 8), np.nan, np.float32)

    answer = start(replace(linear, autoencoder=Nan())).post(f"/decode?{SHAPE}", LATENT)
    assert answer.status == 422 and "NaN" in answer.error


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        ("Basic $", 401),
        (f"Bearer {SENT}", 200),
        (f"bearer {SENT}", 200),
        ("Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode(), 200),
    ],
)
def test_a_token_lets_nobody_else_in(start, authorization, status):
    running = start(token=TOKEN)
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = running.post(f"/decode?{SHAPE}", LATENT, **headers)
    assert answer.status == status
    if status == 401:
        assert "AURAVAE_TOKEN" in answer.error
    assert running.get("/metrics", **headers).status == status
    assert running.get("/health").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Origin": "HERE"}, 200),
    ],
)
def test_pages_of_other_sites_get_nothing(service, headers, status):
    headers = {k: v.replace("HERE", service.url) for k, v in headers.items()}
    answer = service.post(f"/decode?{SHAPE}", LATENT, **headers)
    assert answer.status == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_stop_finishes_what_is_under_way(linear, slow, gated):
    from auravae_cli.serve.app import app
    from tests.serve.conftest import running as run

    with run(app(slow)) as running:
        asked = [Asking(running, f"/decode?{SHAPE}", LATENT) for _ in range(3)]
        assert gated.begun.acquire(timeout=PATIENCE)
        running.waits_until(lambda: running.service.lanes.waiting == 2)
        threading.Timer(0.2, gated.gate.set).start()
    assert [a.result().status for a in asked] == [200] * 3
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        running.get("/health")


def test_a_second_signal_tells_those_who_wait(start, slow, gated, caplog):
    running = start(slow)
    asked = Asking(running, f"/decode?{SHAPE}", LATENT)
    assert gated.begun.acquire(timeout=PATIENCE)
    running.server.should_exit = running.server.force_exit = True
    answer = asked.result()
    assert (answer.status, answer.error) == (503, "the service stops: try again later")
    assert [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []


def test_pictures_are_freed_when_they_are_answered(service, coffee):
    """Not when the garbage collector comes, which would hold many of them until then."""
    bodies = {f"/decode?{SHAPE}": LATENT}
    for path in ("/v1/encode", "/v1/roundtrip", "/v1/info", "/v1/roundtrip?resize=4500"):
        bodies[path] = coffee

    def post_all() -> None:
        for path, body in bodies.items():
            service.post(path, body)

    post_all()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        post_all()
        service.waits_until(lambda: service.service.bodies.used == 0)
        gc.collect()
        held = [item for item in gc.garbage if isinstance(item, (Call, Turn))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert held == []


def test_answers_do_not_wait_for_the_client_to_acknowledge_their_start():
    with (
        server.listen("127.0.0.1", 0) as place,
        socket.create_connection(place.getsockname(), PATIENCE),
        place.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
