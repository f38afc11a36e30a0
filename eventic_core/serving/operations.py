"""Routes for operators: workers, queues, dead letters, runs, acts and retention.

Owns paths, roles and pages; what is done and how it is put on record is `eventic_core.operations`'.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID  # noqa: TC003 - FastAPI evaluates the annotations

from fastapi import APIRouter, Body, Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from eventic_core.errors import Conflict
from eventic_core.operations import retention
from eventic_core.operations.access import Role
from eventic_core.operations.acts import OperatorAct, act_of
from eventic_core.operations.dead_letters import discard_letter, retry_letter
from eventic_core.operations.queues import pause_queue, paused_queues, resume_queue
from eventic_core.operations.runs import cancel_run, resume_run
from eventic_core.operations.workers import drain_workers, list_workers
from eventic_core.runtime import runs
from eventic_core.runtime.dead_letters import DeadLetter, DeadLetters
from eventic_core.serving.access import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi.routing import APIRoute

    from eventic_core.serving.access import Authenticate

MAX_PAGE: Final = 500

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many at most.")]
Name = Annotated[str, Path(min_length=1, max_length=300)]
Filter = Annotated[str | None, Query(max_length=300)]
RequestKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Names this request: sent again with the same key, nothing is done again.",
    ),
]


class Why(BaseModel):
    """What an act may be given."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=1000)


Because = Annotated[Why, Body(default_factory=Why)]


def operation_routes(*, authenticate: Authenticate | None = None) -> APIRouter:
    """Make the routes for operators, for an app of `Eventic.create_app`.

    Lists need the role `read`, acts `operate`, and `drain` and `discard` the role `admin`. An act takes
    `{"reason": "..."}` and the header `Idempotency-Key`, and is put on record as an `OperatorAct` by whoever called.
    Runs are shown without their arguments and results.

    Nothing is served before the app includes them: `app.include_router(operation_routes(), prefix="/operations")`.

    Args:
        authenticate: Who calls, for these routes; default as the app's, see `Eventic.create_app`.
    """
    router = APIRouter(tags=["operations"])
    lists: dict[str, tuple[Callable[..., Any], str]] = {
        "/workers": (_workers, "The workers"),
        "/queues": (_queues, "The queues, and what waits in them"),
        "/dead-letters": (_letters, "Versions that handlers gave up on, newest first"),
        "/runs": (_runs, "Runs, newest first"),
        "/runs/{run_id}": (_run, "A run"),
        "/acts": (_acts, "What operators did, newest first"),
        "/retention/plan": (_plan, "What each rule of retention would remove"),
    }
    acts: dict[str, tuple[Role, Callable[..., Any], str]] = {
        "/workers/{slot}/drain": (Role.ADMIN, _drain, "Ask a worker to end"),
        "/queues/{name}/pause": (Role.OPERATE, _pause, "Let nothing of a queue be claimed"),
        "/queues/{name}/resume": (Role.OPERATE, _resume_queue, "Let a queue's work be claimed again"),
        "/dead-letters/{letter_id}/retry": (Role.OPERATE, _retry, "Let a worker handle a version once more"),
        "/dead-letters/{letter_id}/discard": (Role.ADMIN, _discard, "Give a version up for good"),
        "/runs/{run_id}/cancel": (Role.OPERATE, _cancel, "Cancel a run"),
        "/runs/{run_id}/resume": (Role.OPERATE, _resume_run, "Go on with a run"),
    }
    for path, (answer, summary) in lists.items():
        _add(router, ("GET", path, summary), answer, guarded(Role.READ, authenticate))
    for path, (role, answer, summary) in acts.items():
        _add(router, ("POST", path, summary), answer, guarded(role, authenticate))
    return router


def _add(router: APIRouter, place: tuple[str, str, str], answer: Callable[..., Any], kind: type[APIRoute]) -> None:
    method, path, summary = place
    router.add_api_route(
        path, answer, methods=[method], summary=summary, response_model=None, route_class_override=kind
    )


# -- lists


def _workers(*, ended: bool = False, limit: Limit = 100) -> dict[str, Any]:
    return {"workers": [worker._asdict() for worker in list_workers(ended=ended, limit=limit)]}


def _queues() -> dict[str, Any]:
    paused = {name: one._asdict() for name, one in paused_queues().items()}
    return {"queues": [asdict(queue) for queue in runs.queues()], "paused": paused}


def _letters(handler: Filter = None, state: Filter = "open", limit: Limit = 100) -> dict[str, Any]:
    return {"dead_letters": [_letter(one) for one in DeadLetters().list(handler, state=state or "open", limit=limit)]}


def _letter(letter: DeadLetter) -> dict[str, Any]:
    names = ("id", "state", "handler", "class_type", "record_id", "version", "attempts", "failed_at", "settled_at")
    return {name: getattr(letter, name) for name in (*names, "settled_by")} | {"error": _error(letter.error)}


def _error(error: Exception | None) -> str | None:
    """Name an error's class; its message may hold what the record holds."""
    return None if error is None else str(getattr(error, "type_name", type(error).__qualname__))


def _runs(
    status: Filter = None, queue: Filter = None, name: Filter = None, before: Filter = None, limit: Limit = 100
) -> dict[str, Any]:
    found = runs.list_runs(status=status, queue=queue, name=name, limit=limit, before=before)
    return {"runs": [_listed(run) for run in found]}


def _run(run_id: Name) -> dict[str, Any]:
    found = runs.get_run(run_id)
    return _listed(found) | {"error": _error(found.error)}


def _listed(run: runs.Run) -> dict[str, Any]:
    hidden = ("arguments", "result", "error")
    return {name: getattr(run, name) for name in type(run).__dataclass_fields__ if name not in hidden}


def _acts(before: UUID | None = None, limit: Limit = 100) -> dict[str, Any]:
    query = OperatorAct.where().order_by(-OperatorAct.fields.id).limit(limit)
    if before is not None:
        query = OperatorAct.where(OperatorAct.fields.id < before).order_by(-OperatorAct.fields.id).limit(limit)
    return {"acts": [_act(act) for act in query.all()]}


def _act(act: OperatorAct) -> dict[str, Any]:
    stamp = act.stamp
    return {
        "id": act.id,
        "act": act.act,
        "target": act.target,
        "actor": stamp.actor,
        "reason": stamp.reason,
        "at": stamp.recorded_at,
        "details": act.details,
    }


def _plan() -> dict[str, Any]:
    found = retention.plan(retention.rules(()))
    return {
        "rules": [
            {"rule": one.rule.name, "removes": str(one.rule.what), "count": one.count, "is_more": one.is_more}
            for one in found
        ]
    }


# -- acts


def _drain(slot: Name, why: Because, key: RequestKey = None) -> dict[str, Any]:
    with _request(key, "worker.drain", slot):
        return {"asked": drain_workers([slot], reason=why.reason, request_key=key)}


def _pause(name: Name, why: Because, key: RequestKey = None) -> dict[str, Any]:
    with _request(key, "queue.pause", name):
        return {"changed": pause_queue(name, reason=why.reason, request_key=key)}


def _resume_queue(name: Name, why: Because, key: RequestKey = None) -> dict[str, Any]:
    with _request(key, "queue.resume", name):
        return {"changed": resume_queue(name, reason=why.reason, request_key=key)}


def _retry(letter_id: UUID, why: Because, key: RequestKey = None) -> dict[str, Any]:
    with _request(key, "dead_letter.retry", str(letter_id)):
        return {"run_id": retry_letter(letter_id, reason=why.reason, request_key=key).id}


def _discard(letter_id: UUID, why: Because, key: RequestKey = None) -> dict[str, Any]:
    with _request(key, "dead_letter.discard", str(letter_id)):
        discard_letter(letter_id, reason=why.reason, request_key=key)
    return {"state": "discarded"}


def _cancel(run_id: Name, why: Because, key: RequestKey = None) -> dict[str, Any]:
    with _request(key, "run.cancel", run_id):
        return {"status": cancel_run(run_id, reason=why.reason, request_key=key)}


def _resume_run(run_id: Name, why: Because, key: RequestKey = None) -> dict[str, Any]:
    with _request(key, "run.resume", run_id):
        return {"status": resume_run(run_id, reason=why.reason, request_key=key)}


@contextmanager
def _request(key: str | None, act: str, target: str) -> Iterator[None]:
    """Refuse a key that names another request, before or meanwhile: who sent this would believe that it was done."""
    _refuse_other(key, act, target)
    yield
    _refuse_other(key, act, target)


def _refuse_other(key: str | None, act: str, target: str) -> None:
    done = act_of(key) if key is not None else None
    if done is not None and (done.act, done.target) != (act, target):
        message = "The Idempotency-Key was used for another request. Choose a new one for each."
        raise Conflict(message)
