"""The FastAPI app of an application: it launches when it starts and drains when it stops.

Owns the lifespan and how the package's errors become responses. Imported when an app is made.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from eventic_core.errors import EventicError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import Request


def create_app(
    name: str,
    *,
    start: Callable[[], None],
    stop: Callable[[], None],
    is_launched: Callable[[], bool],
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
    app.add_exception_handler(EventicError, _respond)
    return app


async def _respond(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EventicError)
    body = {"type": error.code, "title": type(error).__name__, "status": error.http_status, "detail": error.message}
    return JSONResponse(body, status_code=error.http_status, media_type="application/problem+json")
