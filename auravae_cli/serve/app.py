"""The service as an ASGI application: ``uvicorn.run(app(load_codec()))``.

::

    request --access, query, body--> Serving --> handler --> Service --> Lanes --> Codec
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auravae_cli.model.codec import Codec
from auravae_cli.serve import page, remote_vae, rest_paths, status
from auravae_cli.serve.endpoint import HEADERS, Endpoint, Serving
from auravae_cli.serve.limits import Limits
from auravae_cli.serve.openapi import document_endpoint
from auravae_cli.serve.service import Service


def app(
    codec: Codec | Sequence[Codec],
    limits: Limits = Limits(),
    *,
    token: str | None = None,
    batch_size: int | None = None,
) -> Starlette:
    """Return the service of a model; its threads run until ``state.service.close()``.

    Args:
        codec: the model with both halves, or one per device.
        limits: see `Limits`.
        token: the token that clients have to send; None: none.
        batch_size: the number of items of equal shape that run together; None: the codec's own.
    """
    codecs = [codec] if isinstance(codec, Codec) else list(codec)
    service = Service(codecs, limits, token, batch_size)
    endpoints = (*remote_vae.ENDPOINTS, *rest_paths.ENDPOINTS, *status.ENDPOINTS, *page.ENDPOINTS)
    endpoints = (*endpoints, document_endpoint(endpoints, token is not None))

    application = Starlette(
        routes=[route(endpoint, service) for endpoint in endpoints],
        exception_handlers={HTTPException: as_json},
    )
    application.state.service = service
    return application


def route(endpoint: Endpoint, service: Service) -> Route:
    """Return the route of an endpoint."""
    return Route(endpoint.path, Serving(endpoint, service), methods=[endpoint.method])


async def as_json(_: Request, error: Exception) -> Response:
    """Respond to an unknown path or method."""
    assert isinstance(error, HTTPException)
    sentence = {
        404: "no such path: / is the page, /docs lists the others",
        405: "this path takes another method: see the header Allow",
    }
    text = sentence.get(error.status_code, error.detail)
    return JSONResponse({"error": text}, error.status_code, {**HEADERS, **(error.headers or {})})
