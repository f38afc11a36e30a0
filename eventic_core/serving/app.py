"""The FastAPI app of an application: it launches when it starts and drains when it stops.

Owns the lifespan, the limits of what is read, and how errors become responses.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from eventic_core.errors import EventicError
from eventic_core.serving.access import AUTHENTICATE
from eventic_core.serving.limits import RequestLimits
from eventic_core.serving.problems import Refusal, response_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi.responses import Response

    from eventic_core.serving.access import Authenticate


def create_app(
    name: str,
    *,
    start: Callable[[], None],
    stop: Callable[[], None],
    is_launched: Callable[[], bool],
    authenticate: Authenticate | None = None,
    **fastapi: Any,
) -> FastAPI:
    """Make the app; see `Eventic.create_app`. What somebody else launched is left to them to stop."""
    own = fastapi.pop("lifespan", None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        launched_here = not is_launched()
        if launched_here:
            await asyncio.to_thread(start)
        try:
            if own is None:
                yield
            else:
                async with own(app) as state:
                    yield state
        finally:
            if launched_here:
                await asyncio.to_thread(stop)

    app = FastAPI(**{"title": name, **fastapi}, lifespan=lifespan)
    setattr(app.state, AUTHENTICATE, authenticate)
    app.add_middleware(RequestLimits)
    own_handlers = fastapi.get("exception_handlers") or {}
    for error in (EventicError, Refusal):
        if error not in own_handlers:
            app.add_exception_handler(error, _respond)
    if RequestValidationError not in own_handlers:
        app.add_exception_handler(RequestValidationError, _judge)
    return app


async def _respond(_request: Request, error: Exception) -> Response:
    return response_to(error)


async def _judge(_request: Request, error: Exception) -> Response:
    """Say what does not fit in the form of FastAPI, which clients know, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    found = [{name: one[name] for name in ("type", "loc", "msg")} for one in error.errors()]
    return JSONResponse({"detail": found}, status_code=422)
