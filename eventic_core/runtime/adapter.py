"""DBOS, seen through what a worker needs of it.

Owns every private name of DBOS that is touched; each has a contract test. Beside it only `runs` imports dbos, for the
public client that operators' calls go through.
"""

from __future__ import annotations

import copy
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import dbos as _dbos
from dbos import DBOS, Serializer, SetWorkflowID, SQLAlchemyDatasource
from dbos import _core as core
from dbos import _workflow_commands as commands
from dbos._context import DBOSContext, EnterDBOSWorkflow, _set_local_dbos_context, get_local_dbos_context
from dbos._dbos import _get_dbos_instance, _get_or_create_dbos_registry
from dbos._error import DBOSWorkflowCancelledError, DBOSWorkflowConflictIDError
from dbos._queue import _INTERNAL_QUEUE_CONSTRUCTION, Queue
from dbos._serialization import DefaultSerializer
from dbos._sys_db import SystemDatabase
from dbos._utils import GlobalParams, generate_uuid

from eventic_core.errors import NotSerialisable
from eventic_core.records.port import AlreadyDone, OwnershipLost, using_store
from eventic_core.runtime import codec
from eventic_core.runtime.calls import Call, error_text, nondeterminism
from eventic_core.settings import libpq_url
from eventic_core.store.engine import PATIENCE, is_contended, leave_demoted, session_options
from eventic_core.store.sql import statement
from eventic_core.store.work import APPLICATION, DIRECT, SERIALIZATION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

    from eventic_core.settings import Settings
    from eventic_core.store.work import Claim, QueueRow, WorkTable

INTERNAL_QUEUE = "_dbos_internal_queue"
_WAKE_DUE = statement("wake_due")
_log = logging.getLogger("eventic")
_POOL_SECONDS = 3600
"""To wait for a connection of the datasource; DBOS would record a shorter wait's end as the step's error."""
_datasource: SQLAlchemyDatasource | None = None


class JsonSerializer(Serializer):
    """Everything DBOS stores for us, as the codec's JSON; a run's input stays as it is until the run decodes it."""

    def serialize(self, data: Any) -> str:
        """Give JSON text; raises `NotSerialisable`."""
        if isinstance(data, Encoded):
            return data.text
        match data:
            case {"args": (Call() as call,), "kwargs": _}:
                return call.payload
        return error_text(data) if isinstance(data, BaseException) else codec.dumps(data, "what the run gives")

    def deserialize(self, serialized_data: str) -> Any:
        """Give back what was serialised; raises `NotRegistered` or `NotSerialisable`."""
        if serialized_data.startswith(Call.PREFIX):
            return {"args": (Call(serialized_data),), "kwargs": {}}
        with using_store(None):  # a record in it is read as it was, which is not a step of its own
            return codec.loads(serialized_data)

    def name(self) -> str:
        """Name the form in DBOS's tables."""
        return SERIALIZATION


def _refuse_pickle(_self: DefaultSerializer, *_: object) -> NoReturn:
    message = "The value is a pickle, which eventic_core neither writes nor reads: it would run whatever code it names."
    raise NotSerialisable(message)


# DBOS goes by the column `serialization` of a row, and would load a pickle that anybody put into a table. What it
# writes to such a row, the error that ends its run, is JSON.
DefaultSerializer.deserialize = _refuse_pickle  # type: ignore[assignment, method-assign]
DefaultSerializer.serialize = JsonSerializer.serialize  # type: ignore[assignment, method-assign]


class Encoded(NamedTuple):
    """A step's value with the text that DBOS is to store of it; what DBOS replays is the plain value."""

    value: Any
    text: str


class Claimed(NamedTuple):
    """Work that this process has claimed.

    Attributes:
        owner: The token of the claim: nobody else may complete the run while it stands.
        attempts: How often it was claimed, this time included.
        status: What DBOS needs to know of it to run it.
    """

    run_id: str
    name: str
    owner: str
    attempts: int
    payload: str
    status: Any


class Position(NamedTuple):
    """Where in a run the calling code is."""

    run_id: str
    owner: str
    next_step: Callable[[], int]


# -- lifecycle


def launch(settings: Settings, url: str, *, executor_id: str, session_name: str, own_dispatch: bool) -> None:
    """Start DBOS in this process.

    Args:
        settings: Of the application.
        url: The database, the same as the records'.
        executor_id: Who this process is; its unfinished work of an earlier life becomes ready again.
        session_name: The application_name of its connections.
        own_dispatch: Whether DBOS leaves all queues but its internal one to us.
    """
    logging.getLogger("dbos").addFilter(_tells_news)
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_url": libpq_url(url),
            "application_version": settings.app_version,
            "executor_id": executor_id,
            "serializer": JsonSerializer(),
            "sys_db_pool_size": settings.pool_size,
            "db_engine_kwargs": {
                "pool_pre_ping": False,  # it retries lost connections itself, for one statement less
                "hide_parameters": True,
                "connect_args": {"application_name": session_name, "options": session_options(url), **PATIENCE},
            },
            "run_migrations": False,  # done before: what an earlier life left is looked at first
            "log_level": settings.log_level or "WARNING",
        }
    )
    if own_dispatch:
        DBOS.listen_queues([])
    SystemDatabase.transition_delayed_workflows = _wake_due  # type: ignore[assignment, method-assign]
    DBOS.launch()
    leave_demoted(_get_dbos_instance()._sys_db.engine)  # noqa: SLF001 - what this module is for


def _wake_due(system: SystemDatabase) -> None:
    """Make work ready that is due by the server's clock; DBOS would ask this process's, which may be off."""
    with system.engine.begin() as connection:
        connection.exec_driver_sql(_WAKE_DUE, (APPLICATION,))


def _tells_news(record: logging.LogRecord) -> bool:
    """Leave out that a run was called again by its id after somebody had taken it over: that is as it should be."""
    return f"already exists in queue: {DIRECT}" not in record.getMessage()


def rename_executor(executor_id: str) -> None:
    """Claim and start runs under another name from now on."""
    GlobalParams.executor_id = executor_id


def destroy(*, drain_seconds: float) -> None:
    """Stop DBOS, waiting for running workflows as long as said; what they were is kept for another launch."""
    DBOS.destroy(workflow_completion_timeout_sec=max(0, round(drain_seconds)))
    _close_datasource()


def runs_workflows() -> bool:
    """Tell whether a workflow runs in this process, called by its function or claimed."""
    return bool(_get_dbos_instance()._active_workflows_set.activeList())  # noqa: SLF001 - what this module is for


def migrate_if_asked(settings: Settings, url: str) -> None:
    """Bring DBOS's tables up to date if the settings say so; else `launch` refuses tables that are behind."""
    if settings.auto_migrate:
        migrate(url)


def migrate(url: str) -> None:
    """Create DBOS's tables, or bring them up to date."""
    DBOS.migrate(libpq_url(url))


# -- workflows and steps


def register_workflow(name: str, entry: Callable[..., Any], *, max_attempts: int) -> Callable[..., Any]:
    """Make a function of one `Call` a workflow of DBOS; gives what starts it here and now."""
    _get_or_create_dbos_registry().workflow_info_map.pop(name, None)  # defined again, as in a notebook
    workflow: Callable[..., Any] = DBOS.workflow(name=name, max_recovery_attempts=max_attempts)(entry)
    return workflow


def run_step(name: str, options: dict[str, Any], function: Callable[[], Any]) -> Any:
    """Run a function as the next step of the run; it must be called in the body of one."""
    chosen: Any = {"name": name, **options}
    with _determinism():
        return DBOS.run_step(chosen, function)


async def run_step_async(name: str, options: dict[str, Any], function: Callable[[], Any]) -> Any:
    """Run an async function as the next step of the run."""
    chosen: Any = {"name": name, **options}
    with _determinism():
        return await DBOS.run_step_async(chosen, function)


@contextmanager
def _determinism() -> Iterator[None]:
    """Turn DBOS's error for a repeated run that does another step into ours."""
    try:
        yield
    except _dbos.error.DBOSUnexpectedStepError as error:
        run, step, now, before = error.inputs
        raise nondeterminism(run, step, f"did {before!r}", f"does {now!r}") from error


def position() -> Position | None:
    """Tell where in a run the calling code is; `None` outside runs and inside steps."""
    context = get_local_dbos_context()
    if context is None or not context.is_workflow():
        return None

    def next_step() -> int:
        context.function_id += 1
        return context.function_id

    return Position(context.workflow_id, context.owner_xid or "", next_step)


def step_number() -> int:
    """Give the number of the step the calling code is in; 0 outside of one."""
    context = get_local_dbos_context()
    return context.curr_step_function_id if context is not None and context.is_step() else 0


def lost(run_id: str) -> BaseException:
    """Make what DBOS raises when an execution does not own its run any more: it then waits for the owner's outcome."""
    return DBOSWorkflowConflictIDError(run_id)


def run_id(name: str) -> AbstractContextManager[Any]:
    """Give the next run started inside the block this id."""
    return SetWorkflowID(name)


# -- queues


class Claims:
    """Claims pieces of queues' ready work for this process; used by one thread at a time."""

    def __init__(self, work: WorkTable) -> None:
        self._work = work
        self._looked_at: dict[str, float] = {}
        self._token = generate_uuid()
        self.doubtful: dict[str, str] = {}
        """The token of the claim under way on each queue; it stays there if nothing is known of the outcome."""

    def is_settled(self, owner: str) -> bool:
        """Tell whether a token is of a claim of this process, of which it is known what it claimed."""
        return owner.startswith(self._token) and owner not in list(self.doubtful.values())

    def claim(self, queue: QueueRow, count: int) -> list[Claimed]:
        """Claim up to `count` pieces of a queue's work.

        By a statement of our own where DBOS's claim would only cost more; by DBOS's for queues with limits over all
        workers, and once a second for work that names no version, which is for whoever runs the latest. A claim whose
        reply was lost may have been committed: the next one begins with what it claimed.
        """
        doubtful = self.doubtful.get(queue.name)
        if doubtful is not None:
            found = self._work.claims_of(queue, doubtful)
            del self.doubtful[queue.name]
            if found:
                return [_claimed(queue, claim, doubtful) for claim in found]
        owner = self.doubtful[queue.name] = f"{self._token}.{generate_uuid()}"
        claimed = self._claim_as(owner, queue, count)
        del self.doubtful[queue.name]
        return claimed

    def _claim_as(self, owner: str, queue: QueueRow, count: int) -> list[Claimed]:
        if queue.limit is None and queue.rate is None:
            found = self._work.claim(queue, count, owner=owner, executor=GlobalParams.executor_id)
            if found or not self._is_time(queue.name):
                return [_claimed(queue, claim, owner) for claim in found]
        try:
            is_found = self._claim_by_dbos(owner, queue, count)
        except Exception as error:
            if not is_contended(error):
                raise
            return []  # another worker is at this queue: there is nothing for now, and the other queues go on
        return [_claimed(queue, claim, owner) for claim in self._work.claims_of(queue, owner)] if is_found else []

    @staticmethod
    def _claim_by_dbos(owner: str, queue: QueueRow, count: int) -> bool:
        system = _get_dbos_instance()._sys_db  # noqa: SLF001 - what this module is for
        executor, version = GlobalParams.executor_id, GlobalParams.app_version
        view = _queue(queue, count)
        if queue.lanes:
            return bool(system.start_queued_partitioned_workflows(view, executor, version, count, owner_xid=owner))
        ids, _stopped_by = system.start_queued_workflows(view, executor, version, None, 0, owner_xid=owner)
        return bool(ids)

    def _is_time(self, queue: str) -> bool:
        now = time.monotonic()
        if now - self._looked_at.get(queue, 0.0) < 1.0:
            return False
        self._looked_at[queue] = now
        return True


def _claimed(queue: QueueRow, claim: Claim, owner: str) -> Claimed:
    run, name, attempts, payload, deadline_ms = claim
    status = {"workflow_deadline_epoch_ms": deadline_ms, "queue_name": queue.name}
    return Claimed(run, name, owner, attempts, payload or "", status)


def _queue(queue: QueueRow, count: int) -> Queue:
    limiter = {"limit": queue.rate[0], "period": queue.rate[1]} if queue.rate else None
    return Queue(
        queue.name,
        queue.limit,
        limiter,  # type: ignore[arg-type]
        worker_concurrency=count,
        partition_concurrency=1 if queue.lanes else None,
        token=_INTERNAL_QUEUE_CONSTRUCTION,
    )


def execute(claimed: Claimed) -> None:
    """Let DBOS run a claimed workflow, on its threads or its event loop."""
    system = _get_dbos_instance()._sys_db  # noqa: SLF001 - what this module is for
    (status,) = system.get_workflow_statuses([claimed.run_id])
    core.execute_dequeued_workflow(_get_dbos_instance(), status, claimed.owner)


def run(claimed: Claimed, body: Callable[[Call], Any]) -> Any:
    """Run the body of a claimed workflow in the calling thread; its outcome is the caller's to store.

    What DBOS's own way of running it does beside is its thread, its log and a statement for the outcome alone.

    Raises:
        OwnershipLost: Another execution took it over, or it was cancelled.
        Exception: What the body raised.
    """
    context = DBOSContext()
    context.id_assigned_for_next_workflow = claimed.run_id
    context.owner_xid = claimed.owner
    context.workflow_deadline_epoch_ms = claimed.status["workflow_deadline_epoch_ms"]
    attributes: Any = {"name": claimed.name, "operationType": "workflow", "queueName": claimed.status["queue_name"]}
    try:
        with EnterDBOSWorkflow(attributes, context):
            try:
                return body(Call(claimed.payload))
            finally:  # of steps in the datasource, which are on record twice by now
                commands.delete_completed_datasource_checkpoints(_get_dbos_instance(), context)
    except (DBOSWorkflowConflictIDError, DBOSWorkflowCancelledError) as error:
        raise OwnershipLost(claimed.run_id) from error


def knows(name: str) -> bool:
    """Tell whether this process has registered a workflow."""
    return name in _get_dbos_instance()._registry.workflow_info_map  # noqa: SLF001


# -- the datasource, the other way of writing a step's checkpoint


def open_datasource(url: str, *, pool_size: int, session_name: str) -> SQLAlchemyDatasource:
    """Open DBOS's datasource on the records' database, with a pool of its own; before `launch`."""
    global _datasource  # noqa: PLW0603 - DBOS knows one, too
    options = {
        "pool_size": pool_size,
        "max_overflow": pool_size,
        "pool_timeout": _POOL_SECONDS,
        "hide_parameters": True,
        "connect_args": {
            "options": f"{session_options(url)} -c TimeZone=UTC",
            "application_name": session_name,
            **PATIENCE,
        },
    }
    _get_or_create_dbos_registry().dbos = None  # of an earlier launch, which DBOS would take for one that runs
    _datasource = SQLAlchemyDatasource.create(url, engine_kwargs=options, serializer=JsonSerializer())
    leave_demoted(_datasource.engine)
    return _datasource


def _close_datasource() -> None:
    global _datasource  # noqa: PLW0603 - as above
    if _datasource is not None:
        _get_or_create_dbos_registry().datasources.remove(_datasource)
        _datasource.engine.dispose()
        _datasource = None


def transaction_step(number: int, name: str, body: Callable[[Session], Encoded]) -> Any:
    """Run a function as the step with this number, in a transaction of the datasource's.

    Gives what it gave, or the plain value that the step gave the first time. May call it again when the transaction
    was lost; raises what `value_step` does.
    """
    source = _datasource
    assert source is not None
    options: Any = {"name": name, "isolation_level": "READ COMMITTED"}
    with _numbered(number):
        return source.run_tx_step(options, lambda: body(source.sql_session()))


def value_step(number: int, name: str, function: Callable[[], Encoded]) -> Any:
    """Run a function as the step with this number; gives what it gave, or the plain value of the first time.

    Raises:
        AlreadyDone: The run did another step the first time; says which.
        Exception: What the function raises, or raised the first time.
    """
    options: Any = {"name": name}
    with _numbered(number):
        return DBOS.run_step(options, function)


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Let the step that is run inside the block have a number that was taken before."""
    context = get_local_dbos_context()
    assert context is not None
    before = copy.copy(context)
    before.function_id = number - 1
    _set_local_dbos_context(before)
    try:
        yield
    except _dbos.error.DBOSUnexpectedStepError as error:
        _run, _step, _expected, recorded = error.inputs
        raise AlreadyDone(recorded, None, None) from error
    finally:
        _set_local_dbos_context(context)
