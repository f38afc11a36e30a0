"""A workflow is killed with -9 in the middle, started again, and ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from uuid import UUID, uuid4

from eventic_core import Eventic, Record


class Account(Record):
    name: str
    balance: int = 0


class Receipt(Record):
    account: UUID
    amount: int
    reference: str


@Eventic.step()
def charge_card(amount: int) -> str:
    """The outside world: may be called twice, so it is given a key that is the same each time."""
    return f"charged {amount} once for key ...{str(Eventic.idempotency_key())[-2:]}"


@Eventic.transaction()
def deposit(account_id: UUID, amount: int, reference: str) -> None:
    """Both records, or none."""
    Account.hydrate(account_id).balance += amount
    Receipt(account=account_id, amount=amount, reference=reference)


@Eventic.workflow()
def save_up(account_id: UUID, times: int) -> int:
    for number in range(1, times + 1):
        reference = charge_card(number)
        deposit(account_id, number, reference)
        if number == times // 2 and "--die" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)  # as if the power went
    account = Account.hydrate(account_id)  # a read in a workflow is on record too
    account.name += ", saved up"
    return account.balance


def work(account_id: UUID) -> None:
    Eventic.launch()
    with Eventic.run_id(f"save-up-{account_id}"):
        print("result:", save_up(account_id, 10), flush=True)
    Eventic.shutdown()


def main() -> None:
    Eventic.init(name="crash")
    account = Account(name=f"Ada {uuid4().hex[:4]}")

    command = [sys.executable, __file__, str(account.id)]
    killed = subprocess.run([*command, "--die"], check=False)
    account.refresh()
    print(f"killed by signal {-killed.returncode} at balance {account.balance}", flush=True)

    subprocess.run(command, check=True)
    account.refresh()
    receipts = Receipt.where(account=account.id).order_by(Receipt.fields.amount).all()
    print(f"balance {account.balance} after {account.version} versions, {len(receipts)} receipts")
    print(f"the last receipt: {receipts[-1].reference}")
    print(f"written by step {receipts[-1].stamp.step_id} of the run")

    Eventic.shutdown()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(UUID(sys.argv[1]))
    else:
        main()
