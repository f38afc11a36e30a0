"""History, diff, blame and the audit stamp of every version; schema evolution."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonpatch
import psycopg
import pytest

from eventic_core import (
    Eventic,
    EvolutionError,
    Invalid,
    InvalidRecord,
    InvalidRecordClass,
    Record,
    RecordNotFound,
)
from eventic_core.records import ABSENT, running


class Page(Record, class_type="HistoryPage"):
    title: str
    body: str = ""
    words: int = 0

    def publish(self) -> None:
        self.body = self.body + "."
        self.words += 1


pytestmark = pytest.mark.usefixtures("eventic")


def test_history_is_newest_first_limited_and_below_a_version() -> None:
    page = Page(title="a")
    for number in range(4):
        page.words = number + 1
    assert [past.version for past in page.history()] == [4, 3, 2, 1, 0]
    assert [past.words for past in page.history(limit=2, before=3)] == [2, 1]
    assert page.history(before=0) == []
    assert page.history()[1].stamp.superseded_at == page.history()[0].stamp.recorded_at


def test_diff_names_changes_and_gives_a_patch_that_applies() -> None:
    page = Page(title="a", body="x")
    with page.edit():
        page.body = "y"
        page.properties.add(status="open")
    page.properties.remove("status")
    diff = page.diff(0, 1)
    assert [(c.field, c.before, c.after) for c in diff.changes] == [
        ("body", "x", "y"),
        ("properties.status", ABSENT, "open"),
    ]
    documents = [past.model_dump(mode="json", exclude_computed_fields=True) for past in reversed(page.history())]
    assert jsonpatch.apply_patch(documents[0], list(diff.patch)) == documents[1]
    assert not page.diff(2, 2)
    assert [c.field for c in page.diff(1).changes] == ["properties.status"]
    with pytest.raises(RecordNotFound, match="version 9"):
        page.diff(0, 9)


def test_every_version_carries_actor_reason_and_correlation() -> None:
    with Eventic.acting(actor="ada", reason="import", correlation_id="case-1"):
        page = Page(title="a")
        with Eventic.acting(actor="bob"):
            page.publish()
        with page.edit(reason="typo"):
            page.title = "b"
    page.publish()
    page.title = "c"
    stamps = [past.stamp for past in reversed(page.history())]
    assert [(s.actor, s.reason, s.correlation_id) for s in stamps] == [
        ("ada", "import", "case-1"),
        ("bob", "import", "case-1"),
        ("ada", "typo", "case-1"),
        (None, "publish", None),
        (None, None, None),
    ]
    with pytest.raises(Invalid, match="draft"):
        _ = Page.model_validate({"title": "d"}).stamp


def test_reason_is_that_of_the_change_a_version_holds() -> None:
    page = Page(title="a")
    with Eventic.unit_of_work():
        page.publish()
        assert Page.where(words=1).count() == 1
        page.title = "b"
        assert Page.where(title="b").count() == 1
        page.publish()
        with page.edit(reason="typo"):
            page.title = "c"
    assert [past.stamp.reason for past in reversed(page.history())] == [None, "publish", None, "typo"]


def test_blame_tells_who_set_each_present_value() -> None:
    with Eventic.acting(actor="ada"):
        page = Page(title="a")
    with Eventic.acting(actor="bob"), running(workflow_id="run-1", step_id=7):
        page.title = "b"
        page.properties.add(status="open", owner="x")
    page.properties.remove("owner")
    blame = page.blame()
    assert set(blame) == {"title", "body", "words", "properties.status"}
    assert (blame["title"].version, blame["title"].actor, blame["title"].value) == (1, "bob", "b")
    assert (blame["title"].workflow_id, blame["title"].step_id) == ("run-1", 7)
    assert (blame["body"].version, blame["body"].actor) == (0, "ada")
    assert blame["properties.status"].version == 2
    page.delete()
    assert Page.restore(page.id).blame()["title"].version == 1


def test_written_by_lists_the_versions_of_a_run() -> None:
    class Other(Record):
        n: int

    with running(workflow_id="run-1", step_id=1):
        page = Page(title="a")
        other = Other(n=1)
    page.title = "b"
    with running(workflow_id="run-1", step_id=2):
        page.title = "c"
    written = Eventic.written_by("run-1")
    assert [(w.class_type, w.id, w.version, w.stamp.step_id) for w in written] == [
        ("HistoryPage", page.id, 0, 1),
        ("Other", other.id, 0, 1),
        ("HistoryPage", page.id, 2, 2),
    ]
    assert written[2].document["title"] == "c"
    assert Eventic.written_by("run-2") == []


def define(version: int, upcasters: dict[int, Any], fields: dict[str, Any]) -> type[Record]:
    namespace = {"__module__": __name__, "__qualname__": "define.<locals>.Person", "__annotations__": fields}
    return type(Page)(  # type: ignore[no-any-return]
        "Person", (Record,), namespace, class_type="EvolvingPerson", schema_version=version, upcasters=upcasters
    )


def split(document: dict[str, Any]) -> dict[str, Any]:
    first, _, last = document.pop("name").partition(" ")
    return {**document, "first": first, "last": last}


def test_old_versions_are_lifted_when_read_and_never_rewritten(eventic: str) -> None:
    old = define(1, {}, {"name": str})
    person: Any = old(name="Ada Lovelace")
    new = define(2, {1: split}, {"first": str, "last": str})
    lifted: Any = new.hydrate(person.id)
    assert (lifted.first, lifted.last, lifted.stamp.schema_version) == ("Ada", "Lovelace", 1)
    lifted.first = "Augusta"
    again: Any = new.hydrate(person.id)
    assert (again.first, again.version, again.stamp.schema_version) == ("Augusta", 1, 2)
    assert [past.stamp.schema_version for past in again.history()] == [2, 1]
    assert set(again.blame()) == {"first", "last"}
    with psycopg.connect(eventic) as connection:
        stored = connection.execute("select data from eventic.records where version = 0").fetchone()
    assert stored is not None
    assert stored[0]["name"] == "Ada Lovelace"


def test_unreachable_versions_fail_at_the_start_and_say_what_is_missing(eventic: str) -> None:
    person: Any = define(1, {}, {"name": str})(name="Ada Lovelace")
    Eventic.shutdown()
    broken = define(3, {2: lambda document: document}, {"first": str})
    with pytest.raises(EvolutionError, match=r"EvolvingPerson.*from 1"):
        Eventic.init(name="tests", database_url=eventic)
    fixed = define(3, {1: split, 2: lambda d: {"first": d["first"]}}, {"first": str})
    Eventic.init(name="tests", database_url=eventic)
    assert fixed.hydrate(person.id).model_dump()["first"] == "Ada"
    with pytest.raises(EvolutionError):
        broken.hydrate(person.id)


def test_newer_data_than_the_class_are_refused(eventic: str) -> None:
    define(2, {1: split}, {"first": str})(first="Ada")  # type: ignore[call-arg]
    Eventic.shutdown()
    older = define(1, {}, {"name": str})
    with pytest.raises(EvolutionError, match="newer than the class"):
        Eventic.init(name="tests", database_url=eventic)
    assert older.__eventic__.schema_version == 1


def test_changed_class_without_upcaster_names_version_and_remedy() -> None:
    person: Any = define(1, {}, {"name": str})(name="Ada")
    changed = define(1, {}, {"first": str})
    with pytest.raises(InvalidRecord, match="schema_version"):
        changed.hydrate(person.id)


def test_upcasters_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(InvalidRecordClass, match="leads nowhere"):
        define(2, {2: split}, {"first": str})
    with pytest.raises(InvalidRecordClass, match="starts at 1"):
        define(-1, {}, {"first": str})


def test_acting_holds_in_tasks_started_inside() -> None:
    async def main() -> str | None:
        with Eventic.acting(actor="ada"):
            page = await asyncio.create_task(Page.create_async(title="a"))
        return page.stamp.actor

    assert asyncio.run(main()) == "ada"
