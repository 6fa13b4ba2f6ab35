"""Counts of the service, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

STEPS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts of requests, bytes and seconds by path, and of batches in the model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[Labels] = Counter()
        self._bytes: Counter[Labels] = Counter()
        self._within: defaultdict[str, Counter[float]] = defaultdict(Counter)
        self._seconds: Counter[str] = Counter()
        self._batches = self._items = 0
        self._busy = 0.0

    def count_request(
        self, path: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """Count a request; status 499 if its client disconnected."""
        with self._lock:
            self._requests[("path", path), ("status", str(status))] += 1
            self._bytes[("path", path), ("direction", "received")] += received
            self._bytes[("path", path), ("direction", "sent")] += sent
            self._seconds[path] += seconds  # type: ignore[assignment]
            for step in STEPS:
                self._within[path][step] += seconds <= step

    def count_batch(self, size: int, seconds: float) -> None:
        """Count a batch of ``size`` that has run in the model."""
        with self._lock:
            self._batches += 1
            self._items += size
            self._busy += seconds

    def mean_seconds(self) -> float:
        """Return the mean time of one item in the model; 1 if none has run."""
        return self._busy / self._items if self._items else 1.0

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return all counts, and ``gauges``: name => (help text, value)."""
        with self._lock:
            return "\n".join([*self._lines(), *_gauges(gauges), ""])

    def _lines(self) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests by path and status.")
        yield from _rows("requests_total", self._requests)
        yield from _head("bytes_total", "counter", "Bytes of bodies by path and direction.")
        yield from _rows("bytes_total", self._bytes)
        yield from _head("request_seconds", "histogram", "Time from the head to the last byte.")
        for path, within in self._within.items():
            total = sum(n for key, n in self._requests.items() if ("path", path) in key)
            for step in STEPS:
                yield _row(
                    "request_seconds_bucket", (("path", path), ("le", f"{step:g}")), within[step]
                )
            yield _row("request_seconds_bucket", (("path", path), ("le", "+Inf")), total)
            yield _row("request_seconds_sum", (("path", path),), self._seconds[path])
            yield _row("request_seconds_count", (("path", path),), total)
        for name, text, value in (
            ("batches_total", "Batches that ran in the model.", self._batches),
            ("batched_items_total", "Pictures and latents in them.", self._items),
            ("model_seconds_total", "Time in the model.", self._busy),
        ):
            yield from _head(name, "counter", text)
            yield _row(name, (), value)


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP auravae_{name} {text}"
    yield f"# TYPE auravae_{name} {kind}"


def _rows(name: str, counts: Mapping[Labels, float]) -> Iterator[str]:
    return (_row(name, labels, value) for labels, value in counts.items())


def _row(name: str, labels: Labels, value: float) -> str:
    """Labels are our own paths and statuses, which need no escaping."""
    inner = ",".join(f'{key}="{text}"' for key, text in labels)
    return f"auravae_{name}{{{inner}}} {value!r}" if labels else f"auravae_{name} {value!r}"


def _gauges(gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
    for name, (text, value) in gauges.items():
        yield from _head(name, "gauge", text)
        yield _row(name, (), value)
