"""Spans of OpenTelemetry: one for each claimed piece of work, workflow, step, transaction, handler, item and job.

Work belongs to the trace of whoever enqueued it. Names and attributes follow the semantic conventions for messaging and
code where there are any, and begin with `eventic.` otherwise. Without the SDK in the process nothing is imported or
done; which exporter there is, is the application's to say.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from eventic_core.records.stamp import current_origin
from eventic_core.store.trace import KEYS, is_traced

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from eventic_core.runtime.adapter import Claimed
    from eventic_core.runtime.calls import Call

_SCOPE: Final = "eventic_core"
_CORRELATION: Final = "eventic.correlation_id"
_OFF: Final[AbstractContextManager[None]] = contextlib.nullcontext()
_RECURRING: Final = frozenset({"eventic.schedule"})
"""Work that comes again for as long as it is wanted: its trace would never end."""


def span(
    what: str, name: str, values: Mapping[str, Any] | None = None, /, **attributes: Any
) -> AbstractContextManager[Span | None]:
    """Open a span for a `with` block, in the one that is open; an error that leaves the block is recorded.

    Args:
        what: The kind of thing: `step`, `item`.
        name: Its name, of which there are few: never an id.
        values: The input of the work, whose trace it belongs to where no span is open.
        attributes: By their names without `eventic.`, a dot written as two underscores; `None` is left out.
    """
    if not is_traced():
        return _OFF
    found = {f"eventic.{key.replace('__', '.')}": value for key, value in attributes.items()}
    return _open(f"{what} {name}", found, values)


def claim(claimed: Claimed, call: Call, *, queue: str, app_version: str) -> AbstractContextManager[Span | None]:
    """Open the span of a claimed piece of work, in the trace of who enqueued it."""
    if not is_traced():
        return _OFF
    from opentelemetry.trace import SpanKind

    values: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):  # whoever runs it says what is wrong with it
        values = call.values
    attributes = {
        "messaging.system": "eventic",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": queue,
        "messaging.message.id": claimed.run_id,
        "eventic.run.id": claimed.run_id,
        "eventic.work": claimed.name,
        "eventic.attempt": claimed.attempts,
        "eventic.app_version": app_version,
        _CORRELATION: values.get("correlation_id"),
    }
    kind = SpanKind.CONSUMER
    return _open(f"process {queue}", attributes, None if claimed.name in _RECURRING else values, kind=kind)


def failed(error: BaseException | None) -> None:
    """Record an error that does not leave the block of the open span as what came of it; `None` is none."""
    if error is not None and is_traced():
        from opentelemetry.trace import Status, StatusCode, get_current_span

        span = get_current_span()
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def correlate(correlation_id: str | None) -> None:
    """Note the correlation id on the open span, where it is not known before the work is looked into."""
    if correlation_id is not None and is_traced():
        from opentelemetry.trace import get_current_span

        get_current_span().set_attribute(_CORRELATION, correlation_id)


def _open(
    name: str, attributes: Mapping[str, Any], values: Mapping[str, Any] | None, **options: Any
) -> AbstractContextManager[Span | None]:
    from opentelemetry import trace

    given = {_CORRELATION: current_origin().correlation_id, **attributes}
    if given[_CORRELATION] is None:
        given[_CORRELATION] = (values or {}).get("correlation_id")
    kept = {key: _plain(value) for key, value in given.items() if value is not None}
    return trace.get_tracer(_SCOPE).start_as_current_span(name, _parent(values), attributes=kept, **options)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else str(value)


def _parent(values: Mapping[str, Any] | None) -> Context | None:
    """Give the context of who enqueued the work; `None` is whatever is open here."""
    if values is None:
        return None
    from opentelemetry import trace

    if trace.get_current_span().get_span_context().is_valid:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({key: values[key] for key in KEYS if values.get(key)})
