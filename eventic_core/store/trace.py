"""The trace that work belongs to: that of whoever enqueues it, carried in the work's input to whoever does it.

Owns the keys of the input that say so, which workers of an earlier version ignore. Opens no span, and does nothing
unless the process has OpenTelemetry's SDK loaded.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS: Final = ("traceparent", "tracestate")
_SDK: Final = "opentelemetry.sdk.trace"


def is_traced() -> bool:
    """Tell whether this process may record spans: its SDK is loaded, if only by name, at the price of one look-up."""
    return _SDK in sys.modules


def carried() -> dict[str, str]:
    """Give what the input of work says of the span that is open, as W3C Trace Context; nothing if none is."""
    found: dict[str, str] = {}
    if is_traced():
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(found)
    return found


def untraced(payload: str) -> Any:
    """Decode the input of work without what it says of traces: the same call twice is the same call."""
    decoded = from_json(payload)
    values: Mapping[str, Any] | None = decoded.get("v") if isinstance(decoded, dict) else None
    if not isinstance(values, dict):
        return decoded
    return {**decoded, "v": {name: value for name, value in values.items() if name not in KEYS}}
