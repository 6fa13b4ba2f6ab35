"""Error responses: a status, and a sentence as JSON."""

from __future__ import annotations

from starlette.responses import JSONResponse

from auravae_cli.errors import AuraVaeError

STATUSES = {
    400: "a parameter is malformed, missing or unknown",
    401: "the token is missing or wrong",
    403: "the request comes from a page of another site",
    408: "the body came too slowly, or incomplete",
    413: "the body or the picture is larger than allowed",
    422: "the body cannot be read or computed",
    429: "busy: try again after Retry-After seconds",
    503: "not enough memory now, the time is up, or the service stops",
}


class Refusal(Exception):
    """An error response: status, sentence, and headers (with ``_`` for ``-``)."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers

    def response(self) -> JSONResponse:
        """Return the response."""
        headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        return JSONResponse({"error": self.sentence}, self.status, headers)


def refusal_of(error: Exception) -> Refusal:
    """Return the response to an error of the input or the machine.

    Any other error is a bug, and its details stay in the log.
    """
    match error:
        case Refusal():
            return error
        case MemoryError():
            return Refusal(503, "not enough memory now: try again, or send a smaller picture")
        case TimeoutError():
            return Refusal(
                503, "the time for a request is up: send a smaller picture, or try again"
            )
        case AuraVaeError():
            return Refusal(422, str(error))
    return Refusal(500, "an error of the service itself; its log says more")
