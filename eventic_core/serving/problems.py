"""What went wrong, as problem+json: what, and what to do; never what was sent, nor where the code or the data are."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from eventic_core.errors import EventicError

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTERNAL: Final = 500
_LISTED: Final = 20
_HIDDEN: Final = {
    500: "It failed on the server. What failed is in the server's log.",
    503: "The server cannot work at the moment. Ask again later; the cause is in the server's log.",
}


class Refusal(HTTPException):
    """A request that is refused before anybody looks at what it asks for.

    Attributes:
        code: A word for programs.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """Make the response."""
    body = {"type": code, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(
        body, status_code=status, media_type="application/problem+json", headers=dict(headers) if headers else None
    )


def response_to(error: Exception) -> Response:
    """Make the response to an error of the package, of FastAPI's judging of a request, or of HTTP."""
    match error:
        case EventicError():
            detail = error.message
            if error.http_status >= _INTERNAL and error.http_status in _HIDDEN:
                detail = _HIDDEN[error.http_status]  # its own names hosts, users and what the driver said
            return problem(error.http_status, error.code, detail) if detail else Response()
        case RequestValidationError():
            found = [{"where": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
            detail = "The request does not fit: " + "; ".join(f"{one['where']}: {one['message']}" for one in found[:3])
            return problem(422, "invalid_request", detail, errors=found[:_LISTED])
        case Refusal():
            return problem(error.status_code, error.code, str(error.detail), error.headers)
        case HTTPException():
            if error.status_code < HTTPStatus.BAD_REQUEST:
                return Response(status_code=error.status_code, headers=error.headers)
            return problem(error.status_code, "http", str(error.detail), error.headers)
    raise error
