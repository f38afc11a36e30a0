"""A served app whose work runs later, on workers: `dbos-runner examples.09_fastapi.app:app` runs one."""

from __future__ import annotations

from uuid import UUID  # noqa: TC003 - Pydantic reads it

from eventic_core import Eventic, Record, on


class Story(Record):
    title: str = "untitled"
    body: str = ""


class Note(Record):
    story: UUID
    version_seen: int


app = Eventic.create_app("stories")
story_queue = Eventic.queue("queue_story")


@Eventic.transaction()
def create() -> UUID:
    return Story().id


@Eventic.transaction()
def draft(story_id: UUID, text: str) -> None:
    Story.hydrate(story_id).body = text


@Eventic.step()
def snapshot(story_id: UUID) -> tuple[int, str]:
    story = Story.hydrate(story_id)
    return story.version, story.body


@on.update(Story)
def note(story: Story) -> None:
    Note(story=story.id, version_seen=story.version)


@app.get("/")
@Eventic.workflow()
def hello() -> dict[str, str]:
    story_id = create()
    story_queue.enqueue(draft, story_id, "once upon a time")
    later = story_queue.enqueue(snapshot, story_id)
    return {"id": str(story_id), "snapshot": later.id}


def main() -> None:
    Eventic.launch()
    made = hello()
    print("snapshot:", Eventic.handle(made["snapshot"]).result(timeout_seconds=30))
    Eventic.shutdown()


if __name__ == "__main__":
    main()
