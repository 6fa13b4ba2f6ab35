"""What the service counts, and on which devices it runs."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import numpy as np
import pytest

from auravae_cli.serve.limits import Limits, Quota
from auravae_cli.serve.metrics import STEPS, Metrics
from auravae_cli.serve.parameters import boolean, colour, integer, number
from auravae_cli.serve.refusal import Refusal
from auravae_cli.serve.service import Service, codecs_on

ROW = re.compile(r'auravae_(\w+)(?:\{((?:\w+="[^"]*",?)+)\})? (\d+(?:\.\d+)?(?:e-?\d+)?)')


def rows(text: str) -> dict[tuple[str, str], float]:
    """Every row; a line that is none fails."""
    found = {}
    for line in text.splitlines():
        if not line.startswith(("# HELP auravae_", "# TYPE auravae_")):
            match = ROW.fullmatch(line)
            assert match, line
            found[match[1], match[2] or ""] = float(match[3])
    return found


def test_metrics_add_up():
    metrics = Metrics()
    for seconds, status in ((0.003, 200), (0.2, 200), (400, 503)):
        metrics.count_request("/decode", status, seconds, 1_000_000_007, 3)
    metrics.count_batch(3, 1.5)
    found = rows(metrics.text({"queue_length": ("Turns.", 4)}))
    assert found["requests_total", 'path="/decode",status="200"'] == 2
    assert found["requests_total", 'path="/decode",status="503"'] == 1
    assert found["bytes_total", 'path="/decode",direction="received"'] == 3_000_000_021
    buckets = [found["request_seconds_bucket", f'path="/decode",le="{s:g}"'] for s in STEPS]
    assert buckets == sorted(buckets) and (buckets[0], buckets[-1]) == (1, 2)
    assert found["request_seconds_bucket", 'path="/decode",le="+Inf"'] == 3
    assert found["request_seconds_count", 'path="/decode"'] == 3
    assert found["request_seconds_sum", 'path="/decode"'] == pytest.approx(400.203)
    assert (found["batched_items_total", ""], found["queue_length", ""]) == (3, 4)
    assert metrics.mean_seconds() == 0.5


def test_the_service_tells_its_metrics(service):
    service.get("/health")
    answer = service.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = rows(answer.body.decode())
    assert found["requests_total", 'path="/health",status="200"'] >= 1
    assert found["requests_under_way", ""] == 0


def test_each_picture_of_a_request_is_converted_before_the_next_is_decoded(linear):
    """So that only one of them is in memory as float32."""
    steps: list[str] = []

    class Noted:
        def decode(self, latents: np.ndarray) -> np.ndarray:
            steps.append("decode")
            return linear.autoencoder.decode(latents)

    def then(image: np.ndarray) -> tuple[int, ...]:
        steps.append("convert")
        return image.shape

    service = Service([replace(linear, autoencoder=Noted())], Limits(), None, None)
    shapes = asyncio.run(service.decode(np.zeros((3, 16, 1, 2), np.float32), then))
    service.close()
    assert shapes == [(3, 8, 16)] * 3
    assert steps == ["decode", "convert"] * 3


def test_one_request_may_exceed_a_quota_alone():
    quota = Quota("things", 10)
    with quota.reserved(25):
        with pytest.raises(Refusal) as refused:
            quota.take(1)
        assert refused.value.status == 429
    assert quota.used == 0
    quota.take(10)
    with pytest.raises(Refusal):
        quota.take(1)


def test_the_time_for_a_transfer_grows_with_the_size():
    limits = Limits(idle=10, seconds=60)
    assert limits.transfer_seconds(0) == 10
    assert limits.transfer_seconds(1_000_000) == 30
    assert limits.transfer_seconds(1 << 30) == 60


@pytest.mark.parametrize(
    ("device", "found"),
    [
        ("cpu", ["cpu", "cpu", "cpu"]),
        ("cuda", ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:2", ["cuda:2", "cuda:3", "cuda:4"]),
    ],
)
def test_devices(linear, device, found):
    def load(device: str):
        return replace(linear, device="cuda:0" if device == "cuda" else device)

    codecs = codecs_on(load, device, 3)
    assert [codec.device for codec in codecs] == found
    assert (codecs[0] is codecs[1]) == (device == "cpu")


@pytest.mark.parametrize(
    ("parameter", "given", "value"),
    [
        (boolean("b", ""), "True", True),
        (boolean("b", ""), "False", False),
        (boolean("b", ""), "perhaps", None),
        (integer("i", "", 0, 10), "10", 10),
        (integer("i", "", 0, 10), "11", None),
        (integer("i", "", 0, 10), "1_0", None),
        (integer("i", "", 0, 10), "٣", None),
        (number("n", "", 0, 1), "1e-3", 0.001),
        (number("n", "", 0, 1), "nan", None),
        (number("n", "", 0, 1), "inf", None),
        (colour("c", "", "white"), "rebeccapurple", "rebeccapurple"),
        (colour("c", "", "white"), "rgb(", None),
    ],
)
def test_values_of_parameters(parameter, given, value):
    if value is None:
        with pytest.raises(ValueError):
            parameter.read(given)
    else:
        assert parameter.read(given) == value
