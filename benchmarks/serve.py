"""How much of the model's throughput is left behind HTTP, how long clients wait, and what memory it takes.

    python benchmarks/serve.py [--model small] [--side 256] [--clients 1 8 64] [--seconds 10] [--rounds 3]
    python benchmarks/serve.py --soak 10000 --model linear

Clients keep a connection each and ask for one `POST /decode` after the other: a latent of ``side`` x
``side`` pixels in float16, answered with 8-bit pixels. "model alone" decodes the same latents in one
process without HTTP. The peer is what one writes in forty lines: Python's threading HTTP server, the model
behind a lock. All take turns; medians over the rounds. ``--soak`` sends so many requests from 8 clients
and prints the memory of the service as it goes.
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from auravae_cli import Codec, load_codec
from auravae_cli.images.read import from_unit


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0, help="requests")
    parser.add_argument("--be-the-peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_the_peer:
        return be_the_peer(arguments.model)
    cells = arguments.side // 8
    latent = np.random.default_rng(0).standard_normal((1, 16, cells, cells)).astype(np.float16)
    if arguments.soak:
        with started("serve", "-m", arguments.model, "--port", "0") as (pid, port):
            return soak(pid, port, latent, arguments.soak)
    compare(latent, arguments)


def compare(latent: np.ndarray, arguments: argparse.Namespace) -> None:
    """Everything in turn, and a table."""
    alone: list[float] = []
    found: dict[tuple[str, int], list[list[float]]] = {}
    rates: dict[tuple[str, int], list[float]] = {}
    with (
        started("serve", "-m", arguments.model, "--port", "0") as (_, service),
        started("peer", arguments.model) as (_, peer),
    ):
        codec = load_codec(arguments.model, parts=("decoder",))
        for _ in range(arguments.rounds):
            alone.append(model_alone(codec, latent, arguments.seconds))
            for clients in arguments.clients:
                for name, port in (("auravae serve", service), ("peer", peer)):
                    seconds, waits = load(port, latent, clients, arguments.seconds)
                    rates.setdefault((name, clients), []).append(len(waits) / seconds)
                    found.setdefault((name, clients), []).append(waits)
    best = statistics.median(alone)
    print(f"model alone: {best:.2f} decodes a second ({min(alone):.2f} to {max(alone):.2f})")
    print(
        "| server | clients | a second | of the model alone | median s | p99 s |\n|---|---|---|---|---|---|"
    )
    for (name, clients), all_waits in found.items():
        waits = sorted(wait for waits in all_waits for wait in waits)
        # of the model in the same round, since the machine is not the same all the time
        share = statistics.median(r / a for r, a in zip(rates[name, clients], alone, strict=True))
        rate = statistics.median(rates[name, clients])
        p99 = waits[min(len(waits) - 1, int(0.99 * len(waits)))]
        middle = statistics.median(waits)
        print(f"| {name} | {clients} | {rate:.2f} | {share:.2f} | {middle:.3f} | {p99:.3f} |")


def model_alone(codec: Codec, latent: np.ndarray, seconds: float) -> float:
    """Decodes a second, without HTTP."""
    decode_once(codec, latent)
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        decode_once(codec, latent)
        number += 1
    return number / (time.perf_counter() - began)


def decode_once(codec: Codec, latent: np.ndarray) -> bytes:
    """What an answer holds: uint8 [1, H, W, 3]."""
    return from_unit(codec.decode_finite(latent.astype(np.float32))[0]).tobytes()


def load(port: int, latent: np.ndarray, clients: int, seconds: float) -> tuple[float, list[float]]:
    """The seconds it took, and how long each request waited."""
    waits: list[float] = []
    began = time.perf_counter()

    def ask_for_a_while(_: int) -> None:
        for wait in requests(port, latent):
            waits.append(wait)
            if time.perf_counter() - began > seconds:
                return

    in_threads(clients, ask_for_a_while)
    return time.perf_counter() - began, waits


def requests(port: int, latent: np.ndarray) -> Iterator[float]:
    """The seconds of one request after the other, on one connection."""
    shape = "&".join(f"shape={side}" for side in latent.shape)
    path = f"/decode?{shape}&dtype=float16&output_type=pt&partial_postprocess=True"
    body, expected = latent.tobytes(), 3 * 64 * latent[0, 0].size
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"Content-Type": "tensor/binary", "Accept": "tensor/binary"}
    while True:
        began = time.perf_counter()
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200 or len(content) != expected:
            raise SystemExit(f"{answer.status}: {content[:200]!r}")
        yield time.perf_counter() - began


def soak(pid: int, port: int, latent: np.ndarray, number: int) -> None:
    """Many requests, and the memory of the service after each tenth of them."""
    shares = [requests(port, latent) for _ in range(8)]
    in_threads(8, lambda client: sum(next(shares[client]) for _ in range(10)))
    print(f"after 80 requests: {resident(pid)} kB")
    for tenth in range(1, 11):
        in_threads(8, lambda client: sum(next(shares[client]) for _ in range(number // 80)))
        print(f"after {80 + tenth * (number // 80) * 8} requests: {resident(pid)} kB", flush=True)


def resident(pid: int) -> int:
    """The kilobytes of a process in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])


def in_threads(number: int, work: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=work, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def started(which: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its id and its port."""
    ours = [sys.executable, "-m", "auravae_cli", "serve", *arguments]
    theirs = [sys.executable, __file__, "--be-the-peer", "--model", *arguments]
    process = subprocess.Popen(
        ours if which == "serve" else theirs, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        hello = process.stderr.readline()
        found = re.search(r"http://127.0.0.1:(\d+)", hello)
        if found is None:
            raise SystemExit(hello + process.stderr.read())
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        process.wait()


def be_the_peer(model: str) -> None:
    """The server that one writes by hand."""
    codec, lock = load_codec(model, parts=("decoder",)), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            shape = [int(side) for side in re.findall(r"shape=(\d+)", self.path)]
            body = self.rfile.read(int(self.headers["Content-Length"]))
            latent = np.frombuffer(body, np.float16).reshape(shape)
            with lock:
                content = decode_once(codec, latent)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # of 5, which is usual, most of 64 clients are turned away

    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
