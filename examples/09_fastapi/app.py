"""A served app: requests run durable workflows, whose follow-up work runs on the queue of a record class."""

from __future__ import annotations

import json
import sys
import threading
import time
from urllib.request import urlopen
from uuid import UUID

import uvicorn

from eventic_core import Eventic, Record


class Story(Record):
    title: str = "untitled"
    body: str = ""


app = Eventic.create_app("stories")  # db_url=..., or EVENTIC_DATABASE_URL, when it is served
story_q = Eventic.queue(Story._queue_name)


@Eventic.transaction()
def create() -> UUID:
    return Story().id


@Eventic.transaction()
def draft(sid: UUID, text: str) -> None:
    Story.hydrate(sid).body = text


@Eventic.step()
def snapshot(sid: UUID) -> str:
    story = Story.hydrate(sid)
    return f"version {story.version}: {story.body}"


@app.get("/")
@Eventic.workflow()
def tell() -> dict[str, str]:
    sid = create()
    story_q.enqueue(draft, sid, "Once upon a time")  # the same key, so one after the other
    seen = story_q.enqueue(snapshot, sid)
    return {"story": str(sid), "snapshot": seen.id}


def show() -> None:
    """Serve in a thread, ask twice, and look at what the workers did."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    for _ in range(2):
        with urlopen(f"http://127.0.0.1:{port}/") as response:
            told = json.load(response)
        print("snapshot:", Eventic.handle(told["snapshot"]).result(timeout_seconds=30))
        print("versions:", [past.version for past in Story.hydrate(told["story"]).history()])
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    Eventic.init(name="stories")  # a script may do with the embedded Postgres
    Eventic.launch()  # harmless: the app would launch itself
    if "serve" in sys.argv:
        uvicorn.run(app)
    else:
        show()
    Eventic.shutdown()
