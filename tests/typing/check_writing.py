"""What a type checker says of writing: scopes, verbs and bulk; read by mypy, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type
from uuid import UUID

from eventic_core import Eventic, Record

if TYPE_CHECKING:
    from collections.abc import Mapping


class Account(Record, class_type="TypedAccount"):
    name: str
    balance: int = 0


def verbs(account: Account, key: UUID, body: Mapping[str, Any]) -> None:
    assert_type(Account.restore(key), Account)
    assert_type(Account.restore(str(key), reason="by mistake"), Account)
    assert_type(Account.apply(body, id=key, expected_version=3), Account)
    assert_type(Account.apply(account), Account)
    account.update(name="a", balance=3)
    account.save()
    account.refresh()
    account.revert(2, reason="typo")
    account.delete(reason="closed")
    Account.restore(3)  # type: ignore[arg-type]
    Account.apply(body, expected_version="3")  # type: ignore[arg-type]
    account.revert("2")  # type: ignore[arg-type]


def bulk(draft: Account) -> None:
    assert_type(Account.create_many([{"name": "a"}, {"name": "b"}]), list[UUID])
    assert_type(Account.create_many((draft for _ in range(1)), progress=print), list[UUID])
    Account.create_many(["a"])  # type: ignore[list-item]


def scopes(account: Account) -> None:
    with account.edit(reason="typo"):
        account.name = "b"
    with Eventic.unit_of_work(reason="transfer"):
        account.balance = 1
    with Eventic.transaction(), Eventic.acting(actor="ada", reason="import", correlation_id="7") as origin:
        assert_type(origin.actor, str | None)
        account.balance = 2
    Eventic.acting("ada")  # type: ignore[call-arg]
    Eventic.unit_of_work("transfer")  # type: ignore[call-arg]


@Eventic.transaction()
def transfer(amount: int, *, note: str = "") -> bool:
    return amount > len(note)


@Eventic.transaction()
async def transfer_async(amount: int) -> str:
    return str(amount)


def decorated() -> None:
    assert_type(transfer(3, note="rent"), bool)
    transfer("three")  # type: ignore[arg-type]


async def asynchronous(account: Account, key: UUID) -> None:
    assert_type(await Account.create_async(name="a"), Account)
    assert_type(await Account.restore_async(key), Account)
    assert_type(await Account.create_many_async([{"name": "a"}]), list[UUID])
    assert_type(await transfer_async(3), str)
    async with account.edit(reason="typo"):
        account.name = "b"
    async with Eventic.unit_of_work():
        account.balance = 1
    await account.update_async(name="c")
    await account.save_async()
    await account.refresh_async()
    await account.revert_async(0)
    await account.delete_async(reason="closed")
