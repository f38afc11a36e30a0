"""The FastAPI app of an application: it launches when it starts and drains when it stops; and routes for runs.

Owns the lifespan, how the package's errors become responses, and how far a run is over HTTP. Imported when an app is
made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator  # noqa: TC003 - FastAPI evaluates the annotations
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID  # noqa: TC003 - FastAPI evaluates the annotations

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from eventic_core.automation.progress import Progress, read, watch
from eventic_core.errors import EventicError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

_WATCH_SECONDS: Final = 0.5
_ENDED: Final = "ended"
_NO_CONTENT: Final = 204


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


# -- runs of automations


def run_routes() -> APIRouter:
    """Make the routes that show how far a run of an automation is, for an app of `Eventic.create_app`.

    `GET /runs/{run_id}/progress` gives JSON: the fields of `Progress`, and `done`. `GET /runs/{run_id}/watch` streams
    the same as server-sent events, `progress` each time it changes and `end` when the run has ended, with comments in
    between that keep idle connections open. A browser's EventSource that connects again afterwards is told to stop.
    An unknown run is a 404.

    Nothing is served before the app includes them, under the prefix and with the authentication that it chooses:
    `app.include_router(run_routes(), prefix="/admin", dependencies=[Depends(signed_in)])`.
    """
    router = APIRouter(tags=["runs"])
    router.get("/runs/{run_id}/progress", summary="How far a run is", response_model=None)(_show_progress)
    router.get(
        "/runs/{run_id}/watch",
        summary="How far a run is, each time that changes",
        response_class=EventSourceResponse,
        responses={_NO_CONTENT: {"description": "The run has ended, and this client has seen it"}},
    )(_watch_progress)
    return router


def _show_progress(run_id: UUID) -> dict[str, Any]:
    return read(run_id).values()


def _to_watch(run_id: UUID, last_event_id: Annotated[str | None, Header()] = None) -> UUID:
    """Refuse what cannot be watched while there can still be a status: a stream begins with 200."""
    if read(run_id).is_ended and last_event_id == _ENDED:
        raise HTTPException(_NO_CONTENT)  # which alone keeps an EventSource from connecting again and again
    return run_id


async def _watch_progress(run_id: Annotated[UUID, Depends(_to_watch)]) -> AsyncIterator[ServerSentEvent]:
    async for seen in watch(run_id, seconds=_WATCH_SECONDS):
        yield _event(seen)


def _event(seen: Progress) -> ServerSentEvent:
    event = ("end", _ENDED) if seen.is_ended else ("progress", None)
    return ServerSentEvent(data=seen.values(), event=event[0], id=event[1])
