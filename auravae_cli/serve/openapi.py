"""The OpenAPI document, made from the endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from auravae_cli.serve.endpoint import Call, Endpoint
from auravae_cli.serve.page import is_of_the_page
from auravae_cli.serve.refusal import STATUSES
from auravae_cli.version import __version__

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "One sentence."}},
}
_BYTES = {"type": "string", "format": "binary"}


def document(endpoints: Sequence[Endpoint], has_token: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all paths but the page's files."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        if not is_of_the_page(endpoint.path):
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "auravae serve",
            "version": __version__,
            "description": "An image autoencoder whose latents flip without the model.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}] if has_token else [],
    }


def operation(endpoint: Endpoint) -> dict[str, Any]:
    """Return the description of one path."""
    gives = {media: {"schema": _schema(media)} for media in endpoint.gives}
    failed = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    described: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}{endpoint.path.replace('/', '_')}",
        "summary": endpoint.summary,
        "parameters": [parameter.to_openapi() for parameter in endpoint.parameters],
        "responses": {
            "200": {"description": "The result.", "content": gives},
            **{str(code): {"description": text, **failed} for code, text in STATUSES.items()},
        },
    }
    if endpoint.takes:
        content = {media: {"schema": _BYTES} for media in endpoint.takes}
        described["requestBody"] = {"required": True, "content": content}
    if endpoint.is_open:
        described["security"] = []
    return described


def _schema(media: str) -> dict[str, Any]:
    by_media = {"application/json": {"type": "object"}, "text/plain": {"type": "string"}}
    return by_media.get(media, _BYTES)


def document_endpoint(endpoints: Sequence[Endpoint], has_token: bool) -> Endpoint:
    """Return the endpoint of the document, which describes itself too."""

    async def answer(_: Call) -> Response:
        return JSONResponse(document((*endpoints, itself), has_token))

    itself = Endpoint(
        *("GET", "/openapi.json", "This document.", answer), is_open=True, is_light=True
    )
    return itself
