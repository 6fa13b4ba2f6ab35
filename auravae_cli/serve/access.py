"""Access control: the token, and no requests from pages of other sites."""

from __future__ import annotations

import base64
import binascii
import hmac
from urllib.parse import urlsplit

from starlette.requests import Request

from auravae_cli.serve.refusal import Refusal

TOKEN_VARIABLE = "AURAVAE_TOKEN"


def check_access(request: Request, token: str | None) -> None:
    """Raise Refusal if the token is missing, or a browser sends the request for a page of another site.

    The token comes as ``Authorization: Bearer``, or as the password of ``Basic``: clients such as that
    of diffusers set no headers, but take ``http://any:TOKEN@host``.
    """
    if is_of_another_site(request):
        raise Refusal(403, "from a page of another site: this service answers its own page only")
    if token is None:
        return
    given = credentials(request.headers.get("authorization", ""))
    if not hmac.compare_digest(given, token.encode()):
        raise Refusal(
            401,
            f"the token is missing or wrong: send Authorization: Bearer with that of {TOKEN_VARIABLE}",
            www_authenticate="Bearer",
        )


def credentials(header: str) -> bytes:
    """Return the token in an ``Authorization`` header; empty if there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def is_of_another_site(request: Request) -> bool:
    """Whether a browser sends the request for a page of another site; other programs send neither header."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")
