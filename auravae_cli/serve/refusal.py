"""What a client is told where there is no result: a status and a sentence, as JSON."""

from __future__ import annotations

from starlette.responses import JSONResponse

from auravae_cli.errors import AuraVaeError, ComputeError

STATUSES = {
    400: "a parameter is malformed, missing or unknown",
    401: "the token is missing or wrong",
    403: "another site's page asks",
    408: "the body came too slowly, or not whole",
    413: "the body or the picture is larger than allowed",
    422: "the body is not what it should be, or cannot be computed",
    429: "busy: try again after Retry-After seconds",
    503: "not enough memory now, or the time is up",
}


class Refusal(Exception):
    """No result, for a reason that the client is told."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers

    def response(self) -> JSONResponse:
        """As it is sent."""
        headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        return JSONResponse({"error": self.sentence}, self.status, headers)


def refusal_of(error: Exception) -> Refusal:
    """What a client is told of an error that its input, or the state of the machine, has caused.

    Any other error is a bug of ours, of which a client learns no more than that.
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
        case ComputeError() | AuraVaeError():
            return Refusal(422, str(error))
    return Refusal(500, "an error of the service itself; its log says more")
