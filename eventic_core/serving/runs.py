"""Routes that tell how far runs of automations are.

Owns what a run looks like over HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003 - FastAPI evaluates the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID  # noqa: TC003 - FastAPI evaluates the annotations

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent

from eventic_core.automation.progress import Progress, read, watch
from eventic_core.operations.access import Role
from eventic_core.serving.access import guarded

if TYPE_CHECKING:
    from eventic_core.serving.access import Authenticate

_WATCH_SECONDS: Final = 0.5
_ENDED: Final = "ended"
_NO_CONTENT: Final = 204


def run_routes(*, authenticate: Authenticate | None = None) -> APIRouter:
    """Make the routes that show how far a run of an automation is, for an app of `Eventic.create_app`.

    `GET /runs/{run_id}/progress` gives JSON: the fields of `Progress`, and `done`. `GET /runs/{run_id}/watch` streams
    the same as server-sent events, `progress` each time it changes and `end` when the run has ended, with comments in
    between that keep idle connections open. A browser's EventSource that connects again afterwards is told to stop.
    An unknown run is a 404.

    Nothing is served before the app includes them: `app.include_router(run_routes(), prefix="/admin")`. They need the
    role `read`; without authentication only this machine is answered.

    Args:
        authenticate: Who calls, for these routes; default as the app's, see `Eventic.create_app`.
    """
    router = APIRouter(tags=["runs"], route_class=guarded(Role.READ, authenticate))
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
