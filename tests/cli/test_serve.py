"""auravae serve as a program: it starts, answers, stops as it is told, and says why it cannot."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PATIENCE = 60


@contextmanager
def served(program, *arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The program at work, and where it listens."""
    command, environment = program
    process = subprocess.Popen(
        [*command, "serve", "-m", "linear", "--port", "0", *arguments],
        env=environment | variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        hello = process.stderr.readline()
        found = re.fullmatch(r"linear on cpu at (http://\S+); stop with Ctrl-C\n", hello)
        assert found, hello + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stderr.close()


def fetch(url: str, body: bytes | None = None, **headers: str) -> bytes:
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_it_is_told_to_stop(program, interruptible, samples, number):
    with served(program) as (process, url):
        assert json.loads(fetch(f"{url}/health"))["status"] == "ok"
        photo, answers = (samples / "coffee_alpha.png").read_bytes(), []
        asking = threading.Thread(
            target=lambda: answers.append(fetch(f"{url}/v1/roundtrip?flip=all", photo))
        )
        asking.start()
        while b'"/v1/roundtrip"' not in fetch(f"{url}/metrics") and not under_way(url):
            pass
        process.send_signal(number)
        asking.join(PATIENCE)
        assert json.loads(answers[0])["image_size"] == [128, 160]
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == "stopped\n"


def under_way(url: str) -> bool:
    rows = fetch(f"{url}/metrics").decode().splitlines()
    return "auravae_requests_under_way 1" in rows


def test_a_token_from_the_environment(program):
    with served(program, AURAVAE_TOKEN="secret") as (_, url):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetch(f"{url}/metrics")
        assert b"auravae_" in fetch(f"{url}/metrics", Authorization="Bearer secret")


def test_limits_are_those_that_are_named(program):
    with served(program, "--max-body", "1K", "--max-pixels", "64") as (_, url):
        with pytest.raises(urllib.error.HTTPError, match="413"):
            fetch(f"{url}/v1/info", bytes(1025))
        query = "shape=16&shape=1&shape={}&dtype=float16"
        fetch(f"{url}/decode?{query.format(1)}", bytes(32))
        with pytest.raises(urllib.error.HTTPError, match="413"):
            fetch(f"{url}/decode?{query.format(2)}", bytes(64))


def test_a_port_that_is_taken(auravae):
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = auravae("serve", "--port", other.getsockname()[1])
    assert result.code == 1
    assert re.search(r"cannot listen on 127.0.0.1 port \d+: Address already in use", result.message)


def test_without_its_packages_it_says_what_to_install(auravae, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("auravae_cli.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.requests", None)
    result = auravae("serve")
    assert result.code == 3
    assert "pip install starlette uvicorn" in result.message
