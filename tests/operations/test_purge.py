"""Purge: a deleted record is gone for good, and no other one."""

from __future__ import annotations

from uuid import uuid4

import pytest

from eventic_core import Eventic, Record
from eventic_core.errors import Conflict, Invalid, RecordNotFound
from eventic_core.operations import OperatorAct, plan_purge, purge

pytestmark = pytest.mark.usefixtures("eventic")


class Parcel(Record, class_type="PurgedParcel", unique=["code"]):
    code: str


class Letter(Parcel, class_type="PurgedLetter"):
    pass


def test_the_id_of_a_purged_record_reads_as_one_that_was_never_stored() -> None:
    gone, alive = Parcel(code="a"), Parcel(code="b")
    gone.code = "c"
    gone.delete()
    assert plan_purge(record_id=gone.id) == 1
    with Eventic.acting(actor="ada"):
        assert purge(record_id=gone.id, reason="a request") == 1
    for version in (None, 0, 1, 2):
        with pytest.raises(RecordNotFound):
            Parcel.hydrate(gone.id, version=version)
    with pytest.raises(RecordNotFound):
        Parcel.restore(gone.id)
    assert Parcel.hydrate(alive.id).code == "b"
    (act,) = OperatorAct.where().all()
    assert (act.act, act.target, act.details["count"], act.stamp.actor) == ("records.purge", str(gone.id), 1, "ada")
    assert gone.id not in [change.id for change in Parcel.changes()]
    again = Parcel(id=gone.id, code="a")
    assert again.version == 0


def test_a_class_is_purged_with_its_subclasses_once_they_are_old_enough() -> None:
    for record in (Parcel(code="a"), Letter(code="b")):
        record.delete()
    Parcel(code="c")
    assert plan_purge("PurgedParcel", older_than_seconds=3600) == 0
    assert purge("PurgedParcel", older_than_seconds=3600) == 0
    assert OperatorAct.where().all() == []
    assert plan_purge("PurgedParcel") == 2
    assert purge("PurgedParcel") == 2
    assert purge("PurgedParcel") == 0
    assert [record.code for record in Parcel.where().all()] == ["c"]


def test_what_cannot_be_purged_says_why() -> None:
    alive = Parcel(code="a")
    with pytest.raises(Conflict, match="not deleted"):
        purge(record_id=alive.id)
    with pytest.raises(RecordNotFound):
        purge(record_id=uuid4())
    with pytest.raises(Invalid):
        purge()
    with pytest.raises(Invalid):
        purge("PurgedParcel", record_id=alive.id)
    assert Parcel.hydrate(alive.id).version == 0
