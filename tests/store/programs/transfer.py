"""Move money between accounts until killed: `transfer.py URL SEED`; prints a line for each thing it has done."""

from __future__ import annotations

import random
import sys
from uuid import uuid4

from ledger import LedgerAccount, LedgerCounter

from eventic_core import Eventic


def transfer(one: LedgerAccount, other: LedgerAccount, amount: int, *, flush: bool) -> None:
    """Move an amount as one unit of work, in one flush or in two."""
    name = str(uuid4())
    with Eventic.unit_of_work(reason="transfer"):
        one.update(balance=one.balance - amount, transfer=name)
        if flush:
            LedgerAccount.where(group="none").count()
        other.update(balance=other.balance + amount, transfer=name)


def main(url: str, seed: int) -> None:
    """Run for ever."""
    chance = random.Random(seed)
    Eventic.init(name="transfer", database_url=url)
    one_flush = LedgerAccount.where(group="one").all()
    two_flushes = LedgerAccount.where(group="two").all()
    [counter] = LedgerCounter.where().all()
    while True:
        kind = chance.choice(("transfer", "transfer", "flushed", "rename", "exchange", "assign", "visitor"))
        one, other = chance.sample(one_flush, 2)
        if kind == "transfer":
            transfer(one, other, chance.randint(1, 9), flush=False)
        elif kind == "flushed":
            transfer(*chance.sample(two_flushes, 2), chance.randint(1, 9), flush=True)
        elif kind == "rename":
            one.name = str(uuid4())
        elif kind == "exchange":
            name = str(uuid4())
            with Eventic.unit_of_work():
                one.update(name=name, balance=one.balance - 1, transfer=name)
                other.update(name=f"{name}'", balance=other.balance + 1, transfer=name)
        elif kind == "assign":
            counter.value += 1
        else:
            visitor = LedgerAccount(name=f"visitor {uuid4()}", group="visitor")
            visitor.delete()
        print(kind, flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
