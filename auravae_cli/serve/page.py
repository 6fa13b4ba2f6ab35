"""The page's files, which are part of the package; no other file is served."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.responses import Response

from auravae_cli.serve.endpoint import Call, Endpoint, Handler

_FILES = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/pixels.js": ("pixels.js", "text/javascript"),
    "/docs.js": ("docs.js", "text/javascript"),
}
_POLICY = (  # scripts and data come from this service only
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def is_of_the_page(path: str) -> bool:
    """Whether a path is one of the page's files."""
    return path in _FILES


@cache
def _content(name: str) -> bytes:
    return files(__package__).joinpath("static", name).read_bytes()


def _endpoint(path: str, name: str, media: str) -> Endpoint:
    headers = {"content-security-policy": _POLICY, "cache-control": "no-cache"}

    async def answer(_: Call) -> Response:
        return Response(_content(name), 200, headers, media)

    handler: Handler = answer
    return Endpoint("GET", path, name, handler, (), (), (media,), is_open=True, is_light=True)


ENDPOINTS = tuple(_endpoint(path, *file) for path, file in _FILES.items())
