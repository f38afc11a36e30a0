"""The event bus by itself: exact types, order, threads, and errors that stay its own."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from eventic_core import Invalid
from eventic_core.automation import BatchExecutionFailed, DomainEvent, EventBus, ItemExecutionFailed


@dataclass(frozen=True)
class Rang(DomainEvent):
    number: int


class RangTwice(Rang):
    pass


def test_events_hold_what_the_table_says() -> None:
    failed = ItemExecutionFailed(uuid4(), uuid4(), uuid4(), error_message="no", attempt_count=2)
    assert failed.timestamp.tzinfo is not None
    assert BatchExecutionFailed(uuid4(), uuid4(), uuid4(), finished_at=None).finished_at is None


def test_handlers_hear_exactly_their_type_in_the_order_they_came() -> None:
    bus, heard = EventBus(), []
    bus.register(Rang, lambda event: heard.append(("first", event.number)))
    bus.register(Rang, lambda event: heard.append(("second", event.number)))
    bus.register(RangTwice, lambda event: heard.append(("twice", event.number)))
    bus.dispatch([Rang(1), RangTwice(2), Rang(3)])
    assert heard == [("first", 1), ("second", 1), ("twice", 2), ("first", 3), ("second", 3)]


def test_a_raising_handler_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    for bus in (EventBus(), EventBus(use_async=True)):
        heard: list[Any] = []
        bus.register(Rang, lambda _event: 1 / 0)
        bus.register(Rang, heard.append)
        bus.dispatch([Rang(1)])
        bus.shutdown()
        assert [event.number for event in heard] == [1]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [getattr(record, "action", None) for record in errors] == ["event_handler_failed"] * 2


def test_threads_work_beside_each_other_and_shutdown_waits() -> None:
    bus = EventBus(use_async=True, max_workers=2)
    both, names = threading.Barrier(2, timeout=100), set()

    def meet(_event: Rang) -> None:
        both.wait()
        names.add(threading.current_thread().name)

    bus.register(Rang, meet)
    bus.dispatch([Rang(1), Rang(2)])
    bus.shutdown(wait=True)
    assert len(names) == 2
    assert threading.current_thread().name not in names


def test_after_shutdown_what_is_not_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = EventBus(), []
    bus.register(Rang, heard.append)
    bus.shutdown()
    bus.shutdown(wait=False)
    bus.dispatch([Rang(7)])
    assert heard == []
    assert "Rang(" in caplog.text


async def ring(_event: Rang) -> None: ...


@pytest.mark.parametrize(
    "call",
    [
        lambda: EventBus(max_workers=0),
        lambda: EventBus().register("Rang", print),  # type: ignore[arg-type]
        lambda: EventBus().register(Rang, "print"),  # type: ignore[arg-type]
        lambda: EventBus().register(Rang, ring),
    ],
)
def test_what_could_never_be_told_is_refused(call: Any) -> None:
    with pytest.raises(Invalid):
        call()
