"""The whole error tree, drawn first; every error the package raises on purpose is here.

    EventicError                 code            http  exit
    ├─ ConfigurationError        configuration    500    3   a setting is bad or missing
    │  ├─ NotInitialised         not_initialised  500    3   Eventic.init was not called
    │  └─ NotLaunched            not_launched     500    3   Eventic.launch was not called
    ├─ NotFound                  not_found        404    1
    │  ├─ RunNotFound            run_not_found    404    1   no run has the id
    │  ├─ NotRegistered          not_registered   404    1   a class, function or handler this process does not know
    │  └─ RecordNotFound         record_not_found 404    1   also a KeyError
    │     ├─ RecordDeleted       record_deleted   410    1   its current version is a tombstone
    │     └─ HistoryRemoved      history_removed  410    1   a past that retention has removed
    ├─ Conflict                  conflict         409    1
    │  ├─ VersionConflict        version_conflict 409    1   somebody wrote in between
    │  ├─ RecordExists           record_exists    409    1   the id is taken
    │  ├─ DuplicateKey           duplicate_key    409    1   a unique key is taken
    │  ├─ InvalidStateError      invalid_state    409    1   a move that the table of states does not have
    │  ├─ Nondeterminism         nondeterminism   409    1   a replay took another path than the run it repeats
    │  ├─ ReplayDiverged         replay_diverged  409    1   an item's replay asks what nothing on record answers
    │  ├─ RunCancelled           run_cancelled    409    1   the run whose result is awaited was cancelled
    │  └─ DuplicateRegistration  duplicate_class  409    1   two classes want one name
    ├─ Invalid                   invalid          422    1   also a ValueError
    │  ├─ InvalidRecord          invalid_record   422    1   the values do not fit the class
    │  ├─ InvalidRecordClass     invalid_class    422    1   the class itself cannot be stored
    │  ├─ InvalidFilter          invalid_filter   422    1   a query that makes no sense
    │  ├─ InvalidDag             invalid_dag      422    1   jobs and dependencies that make no DAG
    │  │  ├─ CycleFound          cycle_found      422    1   a job that would wait for itself
    │  │  └─ UnknownJob          unknown_job      422    1   a name that no job of the DAG has
    │  ├─ InvalidBranch          invalid_branch   422    1   a job chose what does not come directly after it
    │  ├─ EndlessMap             endless_map      422    1   a job is mapped over more elements than its limit
    │  ├─ UnknownRule            unknown_rule     422    1   no trigger rule has the name
    │  ├─ InvalidSchedule        invalid_schedule 422    1   no cron, interval or time zone, or one that never comes
    │  ├─ InvalidBackfill        invalid_backfill 422    1   a range without time in it, or with too many due times
    │  ├─ NotSerialisable        not_serialisable 422    1   JSON cannot hold an argument or a result
    │  └─ EvolutionError         evolution        422    1   no chain of upcasters reaches the data
    ├─ NotAllowed                not_allowed      403    1
    │  ├─ ChangedOutsideScope    changed_outside  403    1   an in-place change nobody would store
    │  ├─ ScopeError             scope            403    1   a scope used by another task, or closed
    │  ├─ WriteInStep            write_in_step    403    1   a record written in a step, which may run twice
    │  └─ BlockingInLoop         blocking_in_loop 403    1   a blocking call in an event loop
    ├─ ChildRunFailed            child_run_failed 500    1   the run that a job started and waited for failed
    ├─ RemoteError               remote           500    1   an error of a class this process does not know
    ├─ ResultTimeout             result_timeout   504    1   a result did not come in time; also a TimeoutError
    ├─ StoreUnavailable          unavailable      503    3   Postgres does not answer
    └─ MigrationRequired         migration        503    3   the tables are older or newer than the code

Each message says what happened, to which object, and what to do. Errors survive pickling: they are checkpointed.
This module knows nothing of the rest of the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


class EventicError(Exception):
    """The root: `except EventicError` catches everything the package raises on purpose."""

    code: ClassVar[str] = "eventic"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(kind: type[EventicError], message: str, state: dict[str, Any]) -> EventicError:
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ConfigurationError(EventicError):
    """A setting is bad or missing; the message names it and every place it was looked for."""

    code = "configuration"
    exit_code = 3


class NotInitialised(ConfigurationError):
    """A record was used before `Eventic.init`."""

    code = "not_initialised"


class NotLaunched(ConfigurationError):
    """Background work was asked for before `Eventic.launch`."""

    code = "not_launched"


class NotFound(EventicError):
    """What was asked for does not exist."""

    code = "not_found"
    http_status = 404


class RecordNotFound(NotFound, KeyError):
    """No record of that class, or no such version, is stored under the id."""

    code = "record_not_found"


class RecordDeleted(RecordNotFound):
    """The record's current version is a tombstone; its history can still be read."""

    code = "record_deleted"
    http_status = 410


class HistoryRemoved(RecordNotFound):
    """A version, or a class as it was at a moment, is not stored any more: retention has removed it, or some of it."""

    code = "history_removed"
    http_status = 410


class RunNotFound(NotFound):
    """No run, or no such step of it, has the id."""

    code = "run_not_found"


class NotRegistered(NotFound):
    """A class, function, handler or type is named that this process has not defined."""

    code = "not_registered"


class Conflict(EventicError):
    """The stored state does not allow the write."""

    code = "conflict"
    http_status = 409


class VersionConflict(Conflict):
    """Somebody else wrote the record since it was read; nothing of this write is stored.

    Attributes:
        record_id: The record.
        expected: The version the writer had read.
        actual: The current version.
        changed: Who changed what since: `(version, actor, reason, fields)`, oldest first.
    """

    code = "version_conflict"

    def __init__(
        self,
        class_type: str,
        record_id: UUID,
        *,
        expected: int,
        actual: int,
        changed: Sequence[tuple[int, str | None, str | None, tuple[str, ...]]] = (),
    ) -> None:
        self.class_type = class_type
        self.record_id = record_id
        self.expected = expected
        self.actual = actual
        self.changed = tuple(changed)
        by = "".join(
            f"; version {number} by {who or 'unknown'} ({why or 'no reason'}) changed {', '.join(fields) or 'nothing'}"
            for number, who, why, fields in self.changed
        )
        super().__init__(
            f"Version conflict on {class_type} {record_id}: you read version {expected}, the current one is "
            f"{actual}{by}. Call refresh() and apply the change again, mark the method @evented(retry=n), "
            'or declare the class with merge="disjoint".'
        )


class RecordExists(Conflict):
    """`id=` names a record that is stored already; it is for new ids only."""

    code = "record_exists"


class DuplicateKey(Conflict):
    """Another current record holds the value of a unique key."""

    code = "duplicate_key"


class DuplicateRegistration(Conflict):
    """Two record classes, functions or handlers want the same stored name."""

    code = "duplicate_class"


class InvalidStateError(Conflict):
    """The state a record has does not allow the move or operation; nothing was changed.

    Attributes:
        entity_name: The class.
        entity_id: The record.
        current_state: Its state.
        operation: The state it was to have, or what was to be done.
    """

    code = "invalid_state"

    def __init__(self, entity_name: str, entity_id: object, current_state: str, operation: str) -> None:
        self.entity_name = entity_name
        self.entity_id = entity_id
        self.current_state = current_state
        self.operation = operation
        super().__init__(
            f"{entity_name} {entity_id} is {current_state}, which does not allow {operation}. Nothing was changed; "
            "read it again and see which states may follow."
        )


class Nondeterminism(Conflict):
    """A run that is repeated after a crash did something else than the first time; it is stopped before it writes."""

    code = "nondeterminism"


class ReplayDiverged(Conflict):
    """The replay of an item needs what neither the past nor its recorded steps can tell; nothing was done."""

    code = "replay_diverged"


class RunCancelled(Conflict):
    """The run whose result is awaited was cancelled."""

    code = "run_cancelled"


class Invalid(EventicError, ValueError):
    """The input cannot be accepted; nothing was changed."""

    code = "invalid"
    http_status = 422


class InvalidRecord(Invalid):
    """The values do not fit the record class, or cannot be stored as JSON.

    Attributes:
        errors: One mapping for each problem with `loc` (a path), `msg` and `type`, as Pydantic lists them.
    """

    code = "invalid_record"

    def __init__(self, message: str, *, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class InvalidRecordClass(Invalid, TypeError):
    """The class cannot be a record class; raised when it is defined."""

    code = "invalid_class"


class InvalidFilter(Invalid):
    """A query names an unknown field or operator, or a value of the wrong kind."""

    code = "invalid_filter"


class InvalidDag(Invalid):
    """Jobs and their dependencies make no DAG; the message names the job."""

    code = "invalid_dag"


class CycleFound(InvalidDag):
    """A job depends on itself, directly or through others.

    Attributes:
        path: The jobs of the cycle, each followed by one that waits for it; the first is also the last.
    """

    code = "cycle_found"

    def __init__(self, path: Sequence[str]) -> None:
        self.path = tuple(path)
        super().__init__(
            f"The jobs wait for each other in a cycle: {' -> '.join(self.path)}. Take out one of these dependencies."
        )


class UnknownJob(InvalidDag):
    """A name that no job of the DAG has."""

    code = "unknown_job"


class InvalidBranch(Invalid):
    """What a branch returned is not a choice among the jobs directly after it; the message lists them."""

    code = "invalid_branch"


class EndlessMap(Invalid):
    """What a job is mapped over has more elements than its limit; nothing of it was stored."""

    code = "endless_map"


class UnknownRule(Invalid):
    """No trigger rule has the name; the message lists them."""

    code = "unknown_rule"


class InvalidSchedule(Invalid):
    """A text is no cron and no interval, never comes, or names no time zone; the message repeats it."""

    code = "invalid_schedule"


class InvalidBackfill(Invalid):
    """The range of a backfill is empty or reversed, or has more due times than asked for."""

    code = "invalid_backfill"


class NotSerialisable(Invalid):
    """JSON cannot hold an argument or a result; nothing was enqueued."""

    code = "not_serialisable"


class EvolutionError(Invalid):
    """A stored version is newer than the class, or no chain of upcasters reaches it."""

    code = "evolution"


class NotAllowed(EventicError):
    """The call is refused in this state or place."""

    code = "not_allowed"
    http_status = 403


class ChangedOutsideScope(NotAllowed):
    """A value was changed in place outside an edit scope, where nobody would store it."""

    code = "changed_outside"


class ScopeError(NotAllowed):
    """A scope is used by a task that did not open it, or asked for where none is open."""

    code = "scope"


class WriteInStep(NotAllowed):
    """A record was written in a step, which may run more than once; the message names `transaction()`."""

    code = "write_in_step"


class BlockingInLoop(NotAllowed):
    """A blocking call in a running event loop; the message names the async one."""

    code = "blocking_in_loop"


class ChildRunFailed(EventicError):
    """The run that a job started and waited for has failed.

    Attributes:
        run_id: The run's id.
    """

    code = "child_run_failed"

    def __init__(self, message: str, run_id: object = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class RemoteError(EventicError):
    """A run failed with an error of a class this process does not know.

    Attributes:
        type_name: The class, as `module:name`.
    """

    code = "remote"

    def __init__(self, message: str, type_name: str) -> None:
        super().__init__(message)
        self.type_name = type_name


class ResultTimeout(EventicError, TimeoutError):
    """A result did not come in the time given; the work goes on."""

    code = "result_timeout"
    http_status = 504


class StoreUnavailable(EventicError):
    """Postgres cannot be reached or did not answer in time; the cause is kept."""

    code = "unavailable"
    http_status = 503
    exit_code = 3


class MigrationRequired(EventicError):
    """The tables are not at the revision the code needs.

    Attributes:
        found: The revision in the database, `None` when there are no tables.
        needed: The revision of the code.
    """

    code = "migration"
    http_status = 503
    exit_code = 3

    def __init__(self, *, found: str | None, needed: str, database: str) -> None:
        self.found = found
        self.needed = needed
        super().__init__(
            f"The tables in {database} are at revision {found or 'none'}, this version of eventic_core needs {needed}. "
            "Run `eventic migrate`, or call Eventic.init(auto_migrate=True)."
        )
