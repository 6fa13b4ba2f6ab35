"""Malformed requests, made from the service's own document: each gets a sentence, and no bug shows."""

from __future__ import annotations

import io
import random
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

NUMBER = 200
VALUES = (
    *(
        "",
        "0",
        "1",
        "-1",
        "16",
        "nan",
        "inf",
        "1e400",
        "1.5",
        "1_0",
        "9" * 90,
        "x" * 500,
        "\0",
        "\ud800",
    ),
    *("true", "h", "all", "png", "float16", "bfloat16", "pt", "pil", "reflect", "#ff0000", "rgb("),
)


def mutated(body: bytes, random: random.Random) -> bytes:
    """Change, remove and insert some bytes."""
    changed = bytearray(body)
    for _ in range(random.choice((0, 0, 1, 3, 20))):
        place = random.randrange(len(changed) + 1)
        length = random.choice((0, 1, 1, 30))
        changed[place : place + length] = random.randbytes(random.choice((0, 1, 8)))
    return bytes(changed)


def query_of(parameters: list[dict[str, Any]], random: random.Random) -> list[tuple[str, str]]:
    """Some keys of a path, with values of which some are allowed."""
    found = []
    for parameter in parameters:
        schema = parameter["schema"]
        for _ in range(random.choice((0, 1, 3, 4) if "items" in schema else (0, 0, 1))):
            words = schema.get("enum", ("1", "2", "16")) if random.random() < 0.7 else VALUES
            found.append((parameter["name"], random.choice(words)))
    return found


@pytest.fixture(scope="module")
def bodies(service) -> list[bytes]:
    file = io.BytesIO()
    Image.effect_noise((33, 21), 90).convert("RGB").save(file, "PNG")
    latent = service.post("/v1/encode", file.getvalue()).body
    return [file.getvalue(), latent, bytes(32), b"", b"{}"]


def test_malformed_requests(service, bodies, caplog):
    operations = [
        (path, method.upper(), operation)
        for path, methods in service.get("/openapi.json").json["paths"].items()
        for method, operation in methods.items()
    ]
    source, seen = random.Random(0), set()
    for _ in range(NUMBER):
        path, method, operation = source.choice(operations)
        query = urlencode(query_of(operation["parameters"], source), errors="surrogatepass")
        body = mutated(source.choice(bodies), source) if method == "POST" else b""
        answer = service.ask(method, f"{path}?{query}", body)
        assert answer.status < 500, (path, query, body)
        assert answer.status < 400 or answer.error
        seen.add(answer.status)
    assert seen == {200, 400, 422}
    assert caplog.records == []
    assert service.get("/health").status == 200
    assert service.service.requests.used == service.service.pixels.used == 0
