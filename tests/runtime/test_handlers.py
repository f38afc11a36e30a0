"""Handlers, calls that run later and dead letters, on workers of this process and on real ones that are killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from conftest import new_database, rows, until

from eventic_core import Eventic, Record, Retry, evented, later, on
from eventic_core.errors import (
    Conflict,
    DuplicateRegistration,
    Invalid,
    InvalidFilter,
    NotFound,
    NotSerialisable,
    RecordNotFound,
    RemoteError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOON = Retry(max_attempts=3, delay_seconds=0.02, backoff=2.0)
NEVER = Retry(max_attempts=1)
SEEN: dict[UUID, list[Any]] = defaultdict(list)
"""What handlers have seen of each record, in order; of attempts that were rolled back, too."""


class HandledStory(Record):
    title: str = "untitled"
    body: str = ""

    def publish(self) -> None:
        self.title = self.title.upper()

    def touch(self) -> None:
        self.title = str(self.title)


class HandledSerial(HandledStory):
    part: int = 1


class HandledNote(Record):
    story: UUID
    version_seen: int
    by: str


class HandledNothing(Record):
    value: int = 0


@on.create(HandledStory)
def story_created(story: HandledStory) -> None:
    SEEN[story.id].append(("create", story.version))


@on.update(HandledStory)
def story_updated(story: HandledStory) -> None:
    SEEN[story.id].append(("update", story.version))


@on.delete(HandledStory)
def story_deleted(story: HandledStory) -> None:
    SEEN[story.id].append(("delete", story.version))


@on.call(HandledStory.publish)
def story_published(story: HandledStory) -> None:
    SEEN[story.id].append(("publish", story.version))


@on.create(HandledStory)
@on.update(HandledStory)
@on.call(HandledStory.publish)
def story_noted(story: HandledStory) -> None:
    HandledNote(story=story.id, version_seen=story.version, by="stacked")


@on.create(HandledSerial)
async def serial_created(serial: HandledSerial) -> None:
    await asyncio.sleep(0)
    async with Eventic.unit_of_work():
        await HandledNote.create_async(story=serial.id, version_seen=serial.version, by="async")


class HandledFaulty(Record):
    text: str = "good"


@on.create(HandledFaulty, retry=SOON)
@on.update(HandledFaulty, retry=SOON)
def faulty_noted(faulty: HandledFaulty) -> None:
    SEEN[faulty.id].append((faulty.version, Eventic.idempotency_key()))
    HandledNote(story=faulty.id, version_seen=faulty.version, by="faulty")
    if faulty.text == "bad" and faulty.id not in MENDED:
        message = f"bad version {faulty.version}"
        raise LookupError(message)


class HandledRemote(Record):
    text: str = ""


@on.create(HandledRemote, retry=SOON)
def remote_noted(remote: HandledRemote) -> None:
    SEEN[remote.id].append(remote.version)
    message = "of a run that the handler asked"
    raise RemoteError(message, "ValueError")


@on.update(HandledFaulty)
def faulty_counted(faulty: HandledFaulty) -> None:
    HandledNote(story=faulty.id, version_seen=faulty.version, by="independent")


MENDED: set[UUID] = set()


class HandledRow(Record):
    number: int
    done: bool = False


@on.create(HandledRow, retry=NEVER)
@on.update(HandledRow, retry=NEVER)
def row_noted(row: HandledRow) -> None:
    SEEN[row.id].append(row.version)
    if row.number == 500 and row.version == 0:
        message = "row 500"
        raise ValueError(message)
    HandledNote(story=row.id, version_seen=row.version, by="row")


class HandledTwice(Record):
    count: int = 0

    @evented(run="both")
    def add(self) -> None:
        self.count += 1

    def add_once(self) -> None:
        self.count += 1


class HandledTwiceAll(Record, run="both"):
    count: int = 0

    def add(self) -> None:
        self.count += 1


class HandledAccount(Record):
    total: Decimal = Decimal(0)
    opened: date | None = None
    log: str = ""

    def add(self, amount: Decimal, *, on: date) -> Decimal:
        self.total += amount
        self.opened = on
        return self.total

    def note(self, text: str) -> None:
        self.log += text

    def fail(self) -> None:
        self.log = "never stored"
        message = "no money"
        raise KeyError(message)

    async def add_async(self, amount: Decimal) -> Decimal:
        await asyncio.sleep(0)
        self.total += amount
        return self.total


@Eventic.transaction()
def handled_follow_up(story_id: UUID) -> None:
    HandledNote(story=story_id, version_seen=-1, by="follow-up")


@on.create(HandledNote)
def note_stamped(note: HandledNote) -> None:
    if note.by == "stamps":
        HandledNote(story=note.id, version_seen=0, by="stamped")


# -- the worker of this process, and what is asked of the database


@pytest.fixture(scope="module")
def launched(server_url: str, prepared: str) -> Iterator[str]:
    """The URL of the database that this process works on."""
    with new_database(server_url, prepared) as url:
        Eventic.init(name="handlers", database_url=url)
        Eventic.launch()
        yield url
        Eventic.shutdown()


@pytest.fixture
def url(server_url: str, prepared: str) -> Iterator[str]:
    """A database of the test's own, for other processes."""
    with new_database(server_url, prepared) as found:
        yield found


def quiet(url: str, cls: type[Record]) -> None:
    """Wait until all work on a class's queue is done."""
    unfinished = "select count(*) from dbos.workflow_status where queue_name = %s and status in (%s, %s, %s)"
    waiting = (cls._queue_name, "ENQUEUED", "DELAYED", "PENDING")
    until(lambda: rows(url, unfinished, *waiting) == [(0,)], f"{cls._queue_name} is quiet")


def notes(story_id: UUID, by: str) -> list[int]:
    """The versions noted, in the order of noting."""
    found = HandledNote.where(HandledNote.fields.story == story_id, HandledNote.fields.by == by).all()
    return [note.version_seen for note in sorted(found, key=lambda note: note.stamp.position)]


def work(url: str) -> int:
    """How many runs there ever were."""
    return int(rows(url, "select count(*) from dbos.workflow_status")[0][0])


# -- what is handled


def test_each_kind_of_version_reaches_its_handlers(launched: str) -> None:
    story = HandledStory(title="a")
    story.body = "a bare assignment"
    story.publish()
    with story.edit(reason="twice"):
        story.title = "b"
        story.body = "in one version"
    story.delete()
    HandledStory.restore(story.id)
    quiet(launched, HandledStory)
    seen: dict[str, list[int]] = defaultdict(list)
    for kind, version in SEEN[story.id]:
        seen[kind].append(version)
    assert seen == {"create": [0], "update": [1, 2, 3, 5], "delete": [4], "publish": [2]}


def test_a_function_with_several_subscriptions_is_called_once_for_a_version(launched: str) -> None:
    story = HandledStory(title="a")
    story.publish()
    quiet(launched, HandledStory)
    assert notes(story.id, "stacked") == [0, 1]


def test_subclasses_are_handled_and_their_own_handlers_see_only_them(launched: str) -> None:
    serial, story = HandledSerial(), HandledStory()
    serial.publish()
    for cls in (HandledSerial, HandledStory):
        quiet(launched, cls)
    assert sorted(SEEN[serial.id]) == [("create", 0), ("publish", 1), ("update", 1)]
    assert (notes(serial.id, "async"), notes(story.id, "async")) == ([0], [])


def test_versions_of_a_record_come_in_order_and_each_once(launched: str) -> None:
    stories = [HandledStory() for _ in range(8)]

    def write(own: list[HandledStory]) -> None:
        for number in range(12):
            for story in own:
                story.body = str(number)

    writers = [threading.Thread(target=write, args=(stories[first::4],)) for first in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    quiet(launched, HandledStory)
    for story in stories:
        assert notes(story.id, "stacked") == list(range(13))
        assert [version for kind, version in SEEN[story.id] if kind == "update"] == list(range(1, 13))


def test_a_unit_of_work_is_handled_record_by_record_or_not_at_all(launched: str) -> None:
    story, other = HandledStory(), HandledStory()
    with Eventic.unit_of_work():
        story.title, other.title = "one", "two"
        new = HandledStory(title="three")
    quiet(launched, HandledStory)
    assert [notes(one.id, "stacked") for one in (story, other, new)] == [[0, 1], [0, 1], [0]]
    before = work(launched)
    with pytest.raises(RuntimeError), Eventic.unit_of_work():
        story.title = "never"
        HandledStory(title="never")
        later(story.publish)
        Eventic.connection()
        raise RuntimeError
    assert work(launched) == before
    assert story.title == "one"


def test_nothing_is_enqueued_where_nothing_is_subscribed_or_changed(launched: str) -> None:
    story = HandledStory(title="same")
    quiet(launched, HandledStory)
    before = work(launched)
    nothing = HandledNothing()
    nothing.value = 1
    nothing.delete()
    HandledNothing.create_many({"value": number} for number in range(3))
    story.touch()
    story.title = "same"
    with story.edit():
        pass
    assert work(launched) == before
    assert story.version == 0


def test_a_script_that_knows_no_handler_causes_them_to_run(launched: str) -> None:
    script = """
        from eventic_core import Eventic, Record
        class HandledStory(Record):
            title: str = "untitled"
            body: str = ""
        Eventic.init(name="handlers", database_url=sys.argv[1])
        story = HandledStory()
        story.title = "from outside"
        print(story.id)
    """
    story_id = UUID(run_script(script, launched))
    quiet(launched, HandledStory)
    assert notes(story_id, "stacked") == [0, 1]
    assert SEEN[story_id] == [("create", 0), ("update", 1)]


def test_a_handler_acts_for_whom_it_was_caused_and_says_which_run_it_is(launched: str) -> None:
    with Eventic.acting(actor="ada", correlation_id="case 7", reason="because"):
        cause = HandledNote(story=uuid4(), version_seen=0, by="stamps")
    quiet(launched, HandledNote)
    (written,) = HandledNote.where(HandledNote.fields.story == cause.id).all()
    stamp = written.stamp
    assert (stamp.actor, stamp.correlation_id, stamp.reason) == ("ada", "case 7", "note_stamped")
    assert stamp.workflow_id == f"note_stamped:{cause.id}:0"
    assert [version.id for version in Eventic.written_by(stamp.workflow_id)] == [written.id]


def test_a_name_belongs_to_one_handler() -> None:
    namespace: dict[str, Any] = {"__name__": "another_module"}
    exec("def story_created(story): ...\ndef another(story): ...", namespace)
    with pytest.raises(DuplicateRegistration, match=r"another_module\.another"):
        on.create(HandledStory, name="story_created")(namespace["another"])
    with pytest.raises(Invalid, match="no record class"):
        on.create(int)
    with pytest.raises(Invalid, match="name an evented method"):
        on.call(test_a_name_belongs_to_one_handler)
    with pytest.raises(Invalid, match="package's own"):
        on.create(HandledStory, name="eventic.mine")(namespace["another"])


# -- bulk creation


def test_a_bulk_creation_is_handled_in_chunks_and_a_failing_record_alone(launched: str) -> None:
    before = work(launched)
    ids = HandledRow.create_many({"number": number} for number in range(1000))
    enqueued = work(launched) - before
    assert enqueued <= 4
    changed = HandledRow.hydrate(ids[7])
    changed.done = True
    quiet(launched, HandledRow)
    assert HandledNote.where(HandledNote.fields.by == "row").count() == 1000
    assert notes(ids[7], "row") == [0, 1]
    assert notes(ids[500], "row") == []
    (letter,) = Eventic.dead_letters.list("row_noted")
    assert (letter.record_id, letter.version, str(letter.error)) == (ids[500], 0, "row 500")
    assert rows(launched, "select count(*) from eventic.handled where handler = 'row_noted'") == [(1000,)]


# -- failures and dead letters


def failed(launched: str, **changes: Any) -> tuple[HandledFaulty, Any]:
    """A record whose version 1 was set aside, and its letter."""
    faulty = HandledFaulty()
    with Eventic.acting(**changes):
        faulty.text = "bad"
    faulty.text = "good again"
    quiet(launched, HandledFaulty)
    (letter,) = [letter for letter in Eventic.dead_letters.list("faulty_noted") if letter.record_id == faulty.id]
    return faulty, letter


def test_a_failing_version_is_tried_again_set_aside_and_the_next_one_comes(launched: str) -> None:
    faulty, letter = failed(launched)
    assert [version for version, _key in SEEN[faulty.id]] == [0, 1, 1, 1, 2]
    assert notes(faulty.id, "faulty") == [0, 2]
    assert notes(faulty.id, "independent") == [1, 2]
    assert (letter.version, letter.attempts, letter.state, letter.class_type) == (1, 3, "open", "HandledFaulty")
    assert isinstance(letter.error, LookupError)
    assert str(letter.error) == "bad version 1"
    assert Eventic.dead_letters.get(letter.id) == Eventic.dead_letters.get(str(letter.id)) == letter
    assert HandledFaulty.hydrate(faulty.id, version=1).text == "bad"


def test_each_pause_is_longer_than_the_one_before(launched: str) -> None:
    faulty, _letter = failed(launched)
    pauses = rows(
        launched,
        "select delay_until_epoch_ms - created_at from dbos.workflow_status where workflow_uuid like %s"
        " and delay_until_epoch_ms is not null order by created_at",
        f"faulty_noted:{faulty.id}:1:%",
    )
    assert pauses == [(20,), (40,)]


def test_attempts_at_a_version_share_an_idempotency_key(launched: str) -> None:
    faulty, _letter = failed(launched)
    keys = {version: {key for number, key in SEEN[faulty.id] if number == version} for version in range(3)}
    assert [len(found) for found in keys.values()] == [1, 1, 1]
    assert len(set.union(*keys.values())) == 3
    assert None not in set.union(*keys.values())


def test_a_dead_letter_is_retried_for_exactly_its_version(launched: str) -> None:
    faulty, letter = failed(launched)
    with Eventic.acting(actor="grace"):
        (handle,) = Eventic.dead_letters.retry(letter.id)
    handle.result(timeout_seconds=100)
    again = Eventic.dead_letters.get(letter.id)
    assert (again.state, again.error.args) == ("open", letter.error.args)
    assert notes(faulty.id, "faulty") == [0, 2]
    MENDED.add(faulty.id)
    (handle,) = Eventic.dead_letters.retry([letter.id])
    handle.result(timeout_seconds=100)
    assert Eventic.dead_letters.get(letter.id).state == "done"
    assert notes(faulty.id, "faulty") == [0, 2, 1]
    assert letter.id not in {one.id for one in Eventic.dead_letters.list()}
    assert letter.id in {one.id for one in Eventic.dead_letters.list("faulty_noted", state="done")}
    with pytest.raises(Conflict, match="it is done"):
        Eventic.dead_letters.retry(letter.id)


def test_an_error_that_came_from_elsewhere_is_tried_again_like_any(launched: str) -> None:
    remote = HandledRemote()
    quiet(launched, HandledRemote)
    (letter,) = Eventic.dead_letters.list("remote_noted")
    assert (SEEN[remote.id], letter.attempts) == ([0, 0, 0], 3)
    assert "of a run that the handler asked" in str(letter.error)


def test_a_letter_whose_version_is_gone_is_open_again_and_says_so(launched: str) -> None:
    _faulty, letter = failed(launched)
    with psycopg.connect(launched, autocommit=True) as connection:  # as an operator who purged the record
        connection.execute("alter table eventic.records disable trigger user")
        connection.execute("delete from eventic.records where id = %s", (letter.record_id,))
        connection.execute("alter table eventic.records enable trigger user")
    (handle,) = Eventic.dead_letters.retry(letter.id)
    handle.result(timeout_seconds=100)
    again = Eventic.dead_letters.get(letter.id)
    assert (again.state, type(again.error)) == ("open", RecordNotFound)
    assert f"version 1 of HandledFaulty {letter.record_id}" in str(again.error)


def test_a_discarded_letter_says_by_whom_and_stays_discarded(launched: str) -> None:
    _faulty, letter = failed(launched)
    _other, second = failed(launched)
    with Eventic.acting(actor="grace"):
        Eventic.dead_letters.discard([letter.id, second.id])
    found = Eventic.dead_letters.get(letter.id)
    assert (found.state, found.settled_by, found.attempts) == ("discarded", "grace", 3)
    assert found.settled_at is not None
    assert found.settled_at >= found.failed_at
    for settle in (Eventic.dead_letters.retry, Eventic.dead_letters.discard):
        with pytest.raises(Conflict, match="it is discarded by grace"):
            settle(letter.id)


def test_letters_are_settled_together_or_not_at_all(launched: str) -> None:
    _faulty, letter = failed(launched)
    _other, second = failed(launched)
    Eventic.dead_letters.discard(second.id)
    before = work(launched)
    for settle in (Eventic.dead_letters.retry, Eventic.dead_letters.discard):
        for other, error in ((second.id, Conflict), (uuid4(), NotFound)):
            with pytest.raises(error):
                settle([letter.id, other])
    assert Eventic.dead_letters.get(letter.id).state == "open"
    assert work(launched) == before


def test_a_retry_waits_in_the_lane_of_its_record(launched: str) -> None:
    faulty, letter = failed(launched)
    (handle,) = Eventic.dead_letters.retry(letter.id)
    same = "select count(distinct queue_partition_key), count(*) from dbos.workflow_status where workflow_uuid like %s"
    assert rows(launched, same, f"faulty_noted:{faulty.id}:%")[0][0] == 1
    assert handle.id.startswith(f"faulty_noted:{faulty.id}:1:")
    quiet(launched, HandledFaulty)


def test_dead_letters_refuse_what_makes_no_sense(launched: str) -> None:
    with pytest.raises(NotFound, match="eventic dead-letter list"):
        Eventic.dead_letters.get(uuid4())
    with pytest.raises(InvalidFilter, match="They are open, retried, done, discarded"):
        Eventic.dead_letters.list(state="closed")
    with pytest.raises(InvalidFilter, match="limit=0"):
        Eventic.dead_letters.list(limit=0)
    with pytest.raises(Invalid, match="'x' is no id"):
        Eventic.dead_letters.retry("x")
    assert Eventic.dead_letters.retry([]) == []


# -- methods that run twice, or later


def test_a_method_marked_both_runs_now_and_once_more(launched: str) -> None:
    twice, everything = HandledTwice(), HandledTwiceAll()
    twice.add()
    everything.add()
    assert (twice.count, everything.count) == (1, 1)
    twice.refresh()
    quiet(launched, HandledTwice)
    quiet(launched, HandledTwiceAll)
    assert [HandledTwice.hydrate(twice.id).count, HandledTwiceAll.hydrate(everything.id).count] == [2, 2]
    twice.refresh()
    twice.add_once()
    quiet(launched, HandledTwice)
    assert HandledTwice.hydrate(twice.id).count == 3


def test_later_runs_on_the_state_as_it_is_then_and_gives_the_result(launched: str) -> None:
    account = HandledAccount()
    day = date(2026, 1, 2)
    with Eventic.acting(actor="ada", correlation_id="case 8"):
        handle = later(account.add, Decimal("1.50"), on=day)
    assert handle.result(timeout_seconds=100) == Decimal("1.50")
    now = HandledAccount.hydrate(account.id)
    assert (now.total, now.opened, now.version) == (Decimal("1.50"), day, 1)
    assert (now.stamp.actor, now.stamp.correlation_id, now.stamp.reason) == ("ada", "case 8", "add")
    assert now.stamp.workflow_id == handle.id
    assert later(account.add_async, Decimal(2)).result(timeout_seconds=100) == Decimal("3.50")
    assert account.version == 0


def test_calls_for_a_record_run_later_in_their_order(launched: str) -> None:
    account, other = HandledAccount(), HandledAccount()
    handles = [later(one.note, letter) for letter in "abcdefghijklmnop" for one in (account, other)]
    for handle in handles:
        handle.result(timeout_seconds=100)
    assert {HandledAccount.hydrate(one.id).log for one in (account, other)} == {"abcdefghijklmnop"}
    assert HandledAccount.hydrate(account.id).version == 16


def test_an_error_of_a_later_call_comes_back_and_stores_nothing(launched: str) -> None:
    account = HandledAccount()
    with pytest.raises(KeyError, match="no money"):
        later(account.fail).result(timeout_seconds=100)
    assert HandledAccount.hydrate(account.id).version == 0


def test_later_refuses_what_no_worker_could_do(launched: str) -> None:
    account = HandledAccount()
    before = work(launched)
    with pytest.raises(NotSerialisable, match=r"argument 1 of HandledAccount\.note"):
        later(account.note, object())  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="draft"):
        later(HandledAccount.model_validate({}).fail)
    with pytest.raises(Invalid, match="cannot be called like that"):
        later(account.note)
    with pytest.raises(Invalid, match="public method of a record"):
        later(print)
    assert work(launched) == before


# -- other processes: workers that die, handlers that come and go


def run_script(source: str, *arguments: str, cwd: Path | None = None) -> str:
    code = "import sys\n" + textwrap.dedent(source)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=100, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CLASSES = """
from uuid import UUID
from eventic_core import Eventic, Record, Retry, on

class ShopOrder(Record):
    amount: int = 0
    text: str = ""

class ShopNote(Record):
    order: UUID
    version_seen: int
    by: str
"""

WORKER = (
    CLASSES
    + """
import os, pathlib, signal
from eventic_core.runtime import handling, performer
handling.MOST_CRASHES = 2
performer.MOST_CRASHES = 2
performer.UNSUSPECTED_CLAIMS = 1
app = Eventic.create_app("shop")

@Eventic.transaction()
def follow_up(order_id: UUID, version: int) -> None:
    ShopNote(order=order_id, version_seen=version, by="follow-up")

@on.create(ShopOrder)
@on.update(ShopOrder)
def dies(order: ShopOrder) -> None:
    ShopNote(order=order.id, version_seen=order.version, by="dies")
    Eventic.queue("follow_ups").enqueue(follow_up, order.id, order.version)
    Eventic.connection()  # what is pending is written: only the commit is missing
    died = pathlib.Path(f"died-{order.id}-{order.version}")
    if order.text == "poison" or (order.text == "once" and not died.exists()):
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""
)


def start_worker(url: str, cwd: Path, module: str = "shop") -> subprocess.Popen[str]:
    code = "from eventic_core.cli.worker import runner; runner()"
    command = [sys.executable, "-c", code, module, "--database-url", url]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=cwd)


def end_worker(worker: subprocess.Popen[str]) -> str:
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=100)
    assert worker.returncode == 0, errors
    return errors


def keep_working(url: str, cwd: Path, done: Callable[[], bool]) -> int:
    """Start a worker again whenever it dies, until all is done; tells how often it died."""
    deaths = 0
    worker = start_worker(url, cwd)
    deadline = time.monotonic() + 100
    while not done():
        if worker.poll() is not None:
            assert worker.returncode == -signal.SIGKILL, worker.communicate()[1]
            worker.communicate()
            deaths += 1
            worker = start_worker(url, cwd)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.kill()
    worker.communicate()
    return deaths


def ended(url: str) -> bool:
    """Whether nothing is left to do."""
    sql = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED', 'PENDING')"
    return rows(url, sql) == [(0,)]


def noted(url: str, by: str) -> dict[str, list[int]]:
    """The versions of each order that were noted, in the order of noting."""
    found: dict[str, list[int]] = defaultdict(list)
    sql = """select data->>'order', (data->>'version_seen')::int from eventic.records
        where class_type = 'ShopNote' and data->>'by' = %s order by position"""
    for order, version in rows(url, sql, by):
        found[order].append(version)
    return dict(found)


def subscribe(url: str, cwd: Path) -> None:
    """Let a worker start and end, so that its handlers are subscribed."""
    worker = start_worker(url, cwd)
    assert worker.stderr is not None
    assert "works on" in worker.stderr.readline()
    worker.kill()
    worker.communicate()


ONCE = """
Eventic.init(name="shop", database_url=sys.argv[1])
order = ShopOrder()
order.text = "once"
order.text = "and on"
print(order.id)
"""
POISON = """
Eventic.init(name="shop", database_url=sys.argv[1])
poisoned = ShopOrder()
poisoned.text = "poison"
poisoned.text = "cured"
print(poisoned.id, *(ShopOrder().id for _ in range(20)))
"""


def test_what_a_handler_writes_and_enqueues_is_there_once_though_it_is_killed(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WORKER)
    subscribe(url, tmp_path)
    order = run_script(CLASSES + ONCE, url)
    assert keep_working(url, tmp_path, lambda: ended(url)) == 1
    assert noted(url, "dies") == {order: [0, 1, 2]}
    assert {name: sorted(versions) for name, versions in noted(url, "follow-up").items()} == {order: [0, 1, 2]}
    assert rows(url, "select count(*) from eventic.dead_letters") == [(0,)]


def test_a_version_that_kills_its_workers_is_set_aside_and_all_others_go_on(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WORKER)
    subscribe(url, tmp_path)
    poisoned, *fine = run_script(CLASSES + POISON, url).split()
    assert keep_working(url, tmp_path, lambda: ended(url)) == 2
    assert noted(url, "dies") == {poisoned: [0, 2]} | {order: [0] for order in fine}
    sql = "select handler, record_id::text, version, state, error->>'m' from eventic.dead_letters"
    ((handler, record, version, state, message),) = rows(url, sql)
    assert (handler, record, version, state) == ("dies", poisoned, 1, "open")
    assert "died 2 times" in message


SUBSCRIBERS = (
    CLASSES
    + """
app = Eventic.create_app("shop")

@on.create(ShopOrder)
@on.update(ShopOrder)
def from_now(order: ShopOrder) -> None:
    ShopNote(order=order.id, version_seen=order.version, by="from now")

@on.create(ShopOrder, backfill=True)
@on.update(ShopOrder, backfill=True)
def from_the_first(order: ShopOrder) -> None:
    ShopNote(order=order.id, version_seen=order.version, by="from the first")
"""
)

OPEN_WRITER = (
    CLASSES
    + """
Eventic.init(name="shop", database_url=sys.argv[1])
order = ShopOrder()
order.amount = 1
with Eventic.unit_of_work():
    order.amount = 2
    meanwhile = ShopOrder()
    Eventic.connection()
    print(order.id, meanwhile.id, flush=True)
    sys.stdin.readline()
order.amount = 3
"""
)


def test_a_new_handler_misses_nothing_from_its_subscription_on_and_a_backfill_nothing(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SUBSCRIBERS)
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys\n" + OPEN_WRITER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    order, meanwhile = writer.stdout.readline().split()
    worker = start_worker(url, tmp_path)
    subscribed = "select count(*) from eventic.handlers"
    until(lambda: rows(url, subscribed) == [(4,)], "the handlers are subscribed")
    writer.communicate("\n", timeout=100)
    assert writer.returncode == 0
    caught_up = "select count(*) from eventic.handlers where caught_up"
    until(lambda: rows(url, caught_up) == [(4,)], "the handlers have caught up")
    until(lambda: ended(url), "all is handled")
    errors = end_worker(worker)
    assert "Traceback" not in errors
    assert noted(url, "from the first") == {order: [0, 1, 2, 3], meanwhile: [0]}
    assert noted(url, "from now") == {order: [2, 3], meanwhile: [0]}
