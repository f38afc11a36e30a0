"""Methods run now, handlers later: once for each version, in order, whatever is killed meanwhile."""

from __future__ import annotations

import time
from uuid import UUID

from eventic_core import Eventic, Record, Retry, later, on


class Story(Record):
    title: str
    words: int = 0
    published: bool = False

    def write(self, words: int) -> int:
        self.words += words
        return self.words

    def publish(self) -> None:
        self.published = True


class Note(Record):
    story: UUID
    text: str


@on.create(Story)
def welcome(story: Story) -> None:
    Note(story=story.id, text=f"version {story.version}: a new story, {story.title}")


@on.update(Story)
def count(story: Story) -> None:  # gets the record as the version it is called for
    by = story.stamp.reason or "an assignment"
    Note(story=story.id, text=f"version {story.version}: {story.words} words, by {by}")


@on.call(Story.publish, retry=Retry(max_attempts=2, delay_seconds=0.1))
def announce(story: Story) -> None:
    message = f"nobody wants to print {story.title}"
    raise RuntimeError(message)


def main() -> None:
    Eventic.init(name="handlers", log_level="CRITICAL")
    Eventic.launch()  # a worker in this process; in production dbos-runner runs them

    story = Story(title="The raven")  # stored now; welcome() runs later
    story.write(100)  # runs now; count() runs later
    story.words += 1  # so it does for a bare assignment
    handle = later(story.write, 20)  # the call itself runs later, on a worker
    print("words, as later() says:", handle.result(timeout_seconds=30))
    story.refresh()
    story.publish()

    while Note.where(story=story.id).count() < 5 or not Eventic.dead_letters.list(handler="announce"):
        time.sleep(0.05)
    for note in Note.where(story=story.id).order_by(Note.fields.text).all():
        print(note.text)
    letter = Eventic.dead_letters.list(handler="announce")[0]
    print(f"set aside: {letter.handler}, version {letter.version}, after {letter.attempts} attempts")
    Eventic.dead_letters.discard(letter.id)

    Eventic.shutdown()


if __name__ == "__main__":
    main()
