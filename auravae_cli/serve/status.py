"""Health and metrics."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from auravae_cli.serve.endpoint import Call, Endpoint
from auravae_cli.version import __version__


async def health(call: Call) -> Response:
    """GET /health."""
    service = call.service
    return JSONResponse(
        {
            "status": "ok",
            "version": __version__,
            "model": service.space.model,
            "weights_sha256": service.space.weights_sha256,
            "representation": str(service.space.irreps),
            "device": service.codec.device,
            "dtype": service.codec.compute_dtype,
        }
    )


async def metrics(call: Call) -> Response:
    """GET /metrics."""
    service = call.service
    gauges: dict[str, tuple[str, float]] = {
        "requests_under_way": ("Requests with a complete body.", service.requests.used),
        "queue_length": ("Items that wait for the model.", service.lanes.waiting),
        "body_bytes": ("Bytes of bodies and responses in memory.", service.bodies.used),
        "pixels": ("Pixels of pictures in memory.", service.pixels.used),
    }
    return Response(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")


ENDPOINTS = (
    Endpoint(
        *("GET", "/health", "Whether the service works, and its model.", health),
        is_open=True,
        is_light=True,
    ),
    Endpoint(
        *(
            "GET",
            "/metrics",
            "Requests, queue, seconds and bytes, in the text format of Prometheus.",
            metrics,
        ),
        gives=("text/plain",),
        is_light=True,
    ),
)
