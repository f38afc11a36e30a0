"""Two processes of one application whose spans are kept in memory: `web URL` asks over HTTP, `worker URL` works.

Each prints its spans as JSON when it is done, and each takes `plain` for a process without the SDK.
"""

from __future__ import annotations

import json
import sys
import time
from uuid import UUID

import psycopg
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eventic_core import Eventic, Record, Retry, on
from eventic_core.automation import automation
from eventic_core.jobs import dag, job
from eventic_core.settings import libpq_url

IS_TRACED = "plain" not in sys.argv
EXPORTED = None
if IS_TRACED:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    EXPORTED = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTED))
    trace.set_tracer_provider(provider)

QUEUE = Eventic.queue("traced_orders")
LATER = "for a plain worker"
LEFT = """
select count(*) from dbos.workflow_status
where status in ('ENQUEUED', 'PENDING', 'DELAYED') and workflow_uuid <> %s
"""


class TracedOrder(Record):
    paid: bool = False


@on.update(TracedOrder, name="traced_receipt")
def receipt(order: TracedOrder) -> None:
    assert order.paid


@automation("traced-lines", retry=Retry(max_attempts=1))
def line(item: int) -> int:
    if item == 2:
        raise ValueError("two")
    return weigh(item)


@job
def traced_pack() -> int:
    return 1


@job
async def traced_label(traced_pack: int) -> int:
    return traced_pack + 1


PACKING = dag("traced-packing", traced_pack, traced_label)


@Eventic.step(name="traced_weigh")
def weigh(item: int) -> int:
    return item


@Eventic.step(name="traced_charge")
def charge(order_id: UUID) -> str:
    return f"paid {order_id}"


@Eventic.transaction(name="traced_note")
def note(order_id: UUID) -> None:
    TracedOrder.hydrate(order_id).paid = True


@Eventic.workflow(name="traced_fulfil")
def fulfil(order_id: UUID) -> None:
    charge(order_id)
    note(order_id)
    QUEUE.enqueue(later_fulfil, order_id)
    lines()


@Eventic.workflow(name="traced_late")
async def later_fulfil(order_id: UUID) -> None:
    raise LookupError("nobody home")


@Eventic.transaction(name="traced_lines")
def lines() -> None:
    batch = line.batch("traced", [1, 2])
    line.start(batch)
    PACKING.start()


def web(url: str) -> None:
    app: FastAPI = Eventic.create_app("traced", db_url=url, queues=[])

    @app.post("/orders")
    def make() -> str:
        with Eventic.acting(correlation_id="case-7"):
            order = TracedOrder()
            QUEUE.enqueue(fulfil, order.id, run_id="fulfil-1")
            with trace.get_tracer("web").start_as_current_span("again"):  # the same call is the same run
                QUEUE.enqueue(fulfil, order.id, run_id="fulfil-1")
            QUEUE.enqueue(charge, order.id, run_id=LATER, delay_seconds=3600)
        return "made"

    with TestClient(app) as client:
        assert client.post("/orders").json() == "made"


def worker(url: str) -> None:
    Eventic.init(name="traced", database_url=url)
    Eventic.launch()
    deadline = time.monotonic() + 100
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        while connection.execute(LEFT, (LATER if IS_TRACED else "",)).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    Eventic.shutdown()


if __name__ == "__main__":
    {"web": web, "worker": worker}[sys.argv[1]](sys.argv[2])
    spans = [] if EXPORTED is None else EXPORTED.get_finished_spans()
    sys.stdout.write(
        json.dumps(
            [
                {
                    "name": span.name,
                    "trace": f"{span.context.trace_id:032x}",
                    "id": f"{span.context.span_id:016x}",
                    "parent": span.parent and f"{span.parent.span_id:016x}",
                    "kind": span.kind.name,
                    "status": span.status.status_code.name,
                    "attributes": dict(span.attributes),
                }
                for span in spans
            ]
        )
    )
