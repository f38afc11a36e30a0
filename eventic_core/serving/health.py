"""Routes of an app for load balancers, supervisors and metrics: /livez, /readyz and /metrics.

Owns the routes; what they say is `operations`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from eventic_core.operations.access import Role
from eventic_core.operations.metrics import CONTENT_TYPE, render
from eventic_core.operations.readiness import Report, liveness, readiness
from eventic_core.serving.access import guarded

if TYPE_CHECKING:
    from eventic_core.serving.access import Authenticate


def health_routes(*, authenticate: Authenticate | None = None) -> APIRouter:
    """Make the routes that say how a process is, for an app of `Eventic.create_app`.

    `GET /livez` is 200 while the process's own loops turn, whatever Postgres does; `GET /readyz` while it can work.
    Both are 503 otherwise, with the causes as JSON. `GET /metrics` gives what `operations.metrics.render` does; with
    `?system=false` only what is of the process.

    Nothing is served before the app includes them: `app.include_router(health_routes(), prefix="/internal")`. They need
    the role `read`; without authentication only this machine is answered.

    Args:
        authenticate: Who calls, for these routes; default as the app's, see `Eventic.create_app`.
    """
    router = APIRouter(tags=["health"], route_class=guarded(Role.READ, authenticate))
    for path, answer, summary in (
        ("/livez", _livez, "Whether the process lives"),
        ("/readyz", _readyz, "Whether the process can work"),
    ):
        router.get(path, summary=summary, response_model=None, responses={503: {"description": "It does not"}})(answer)
    router.get("/metrics", summary="Metrics in Prometheus' text format", response_class=PlainTextResponse)(_metrics)
    return router


def _livez() -> JSONResponse:
    return _response(liveness())


def _readyz() -> JSONResponse:
    return _response(readiness())


def _response(report: Report) -> JSONResponse:
    return JSONResponse(report.values(), status_code=report.http_status, headers={"Cache-Control": "no-store"})


def _metrics(*, system: bool = True) -> PlainTextResponse:
    return PlainTextResponse(render(system=system), media_type=CONTENT_TYPE)
