"""Killed processes, restarted servers and lost connections: nothing lost, nothing twice, nothing half."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
import pytest
from programs.ledger import (
    LedgerAccount,
    LedgerCounter,
    ledger_problems,
    rows,
    table_problems,
    torn_moments,
    versions,
    wait_until_alone,
)
from psycopg.conninfo import conninfo_to_dict

from eventic_core import Eventic
from eventic_core.errors import StoreUnavailable
from eventic_core.store import appends, postgres
from eventic_core.store.engine import Database
from eventic_core.store.transaction import PostgresTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

PROGRAMS = Path(__file__).parent / "programs"
OTHERS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
WAITING = f"select count(*) {OTHERS} and wait_event_type = 'Lock'"
TERMINATE = f"select count(*) filter (where pg_terminate_backend(pid)) {OTHERS} and backend_type = 'client backend'"
KILLS = 6


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a test program that tells what it does on stdout."""
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> str:
    """Kill -9; gives what it had printed."""
    process.kill()
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return output


# -- the process dies


def test_killed_process_leaves_whole_transfers(eventic: str) -> None:
    for number in range(4):
        LedgerAccount(name=f"one {number}", group="one")
        LedgerAccount(name=f"two {number}", group="two")
    counter = LedgerCounter()
    chance = random.Random(11)
    for number in range(KILLS):
        process = start("transfer.py", eventic, str(number))
        assert process.stdout is not None
        if not process.stdout.readline():
            pytest.fail(f"a new process does not carry on: {process.communicate()[1][-3000:]}")
        time.sleep(chance.random() / 5)
        kill(process)
        wait_until_alone_except_us(eventic)
        assert table_problems(eventic) == []
        assert ledger_problems(eventic) == []
    counter.refresh()
    assert counter.value == counter.version
    [(transfers,)] = rows(eventic, "select count(distinct data->>'transfer') from eventic.records")
    assert transfers > KILLS
    assert torn_moments(eventic) == []  # all moments of all rounds: no version ever leaves the table


def wait_until_alone_except_us(url: str) -> None:
    """Wait for the end of what a dead process had begun; our own pool's connections do not count."""
    Eventic.shutdown()
    wait_until_alone(url)
    Eventic.init(name="tests", database_url=url)


def test_ledger_checks_see_half_a_transfer(eventic: str) -> None:
    """The other side: two assignments that are no unit of work, with a kill between them, are found."""
    one, other = LedgerAccount(name="a"), LedgerAccount(name="b")
    one.update(balance=-5, transfer="t")
    assert {problem.partition(":")[0] for problem in ledger_problems(eventic)} == {
        "the current sum is not zero",
        "a transfer has not both sides",
    }
    assert torn_moments(eventic) != []
    other.update(balance=5, transfer="t")
    assert ledger_problems(eventic) == []
    assert torn_moments(eventic) != []


def test_ledger_checks_see_an_orphaned_key(eventic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: a delete that frees no key, and a rename that takes none."""
    one, other = LedgerAccount(name="a"), LedgerAccount(name="b")
    for form, sql in appends.APPEND_MANY.items():
        forgetful = sql.replace("where c.value is null and", "where false and")
        forgetful = forgetful.replace("where c.value is not null", "where false")
        assert forgetful != sql
        monkeypatch.setitem(appends.APPEND_MANY, form, forgetful)
    one.delete()
    assert [problem.partition(":")[0] for problem in ledger_problems(eventic)] == ["a key without its record"]
    other.name = "c"
    assert [problem.partition(":")[0] for problem in ledger_problems(eventic)] == [
        "a key without its record",
        "a record without its key",
    ]


# -- the server dies


def read_until(process: subprocess.Popen[str], value: int) -> list[int]:
    """Read the numbers a program prints up to `value`; what it wrote to stderr is the failure if it ends before."""
    assert process.stdout is not None
    found: list[int] = []
    while not found or found[-1] < value:
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1][-3000:])
        found.append(int(line))
    return found


def test_restarted_server_loses_and_doubles_no_increment(own_server: tuple[str, Path]) -> None:
    url, data = own_server
    Eventic.init(name="tests", database_url=url)
    counter = LedgerCounter()
    process = start("write_on.py", url, str(counter.id))
    try:
        printed = read_until(process, 20)
        for _ in range(2):
            before = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
            os.kill(before, signal.SIGQUIT)  # as pg_ctl stop -m immediate; its keeper starts it again
            printed += read_until(process, printed[-1] + 200)
            assert int((data / "postmaster.pid").read_text().split("\n", 1)[0]) != before
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        output, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
        printed += map(int, output.split())
        counter.refresh()
    finally:
        process.kill()
        process.wait()
        Eventic.shutdown()
    assert printed == list(range(1, len(printed) + 1))
    assert (counter.value, counter.version) == (len(printed), len(printed))
    assert [(v, d["value"]) for v, d in versions(url, counter.id)] == [(n, n) for n in range(len(printed) + 1)]
    assert table_problems(url) == []


class Terminator(threading.Thread):
    """Terminates every other connection to a database, again and again."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._ended = threading.Event()
        self.terminated = 0

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._ended.wait(0.02):
                self.terminated += connection.execute(TERMINATE).fetchall()[0][0]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def increments_under_termination(url: str, threads: int, increments: int) -> list[str]:
    """Raise counters by bare assignments while connections die; name every error, loss and repetition."""
    problems: list[str] = []
    counters = [LedgerCounter() for _ in range(threads)]

    def work(counter: LedgerCounter) -> None:
        try:
            for number in range(1, increments + 1):
                counter.value += 1
                read = LedgerCounter.hydrate(counter.id)
                if not read.value == read.version == counter.value == counter.version == number:
                    problems.append(f"{number}: {read!r}, {counter!r}")
        except Exception as error:  # noqa: BLE001 - judged by the caller
            problems.append(f"{type(error).__name__}: {error}")

    workers = [threading.Thread(target=work, args=(counter,)) for counter in counters]
    with Terminator(url) as terminator:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert terminator.terminated > 0
    wanted = [(number, number) for number in range(increments + 1)]
    stored = {counter.id: [(v, d["value"]) for v, d in versions(url, counter.id)] for counter in counters}
    return problems + [f"{key}: {found}" for key, found in stored.items() if found != wanted] + table_problems(url)


def test_terminated_connections_lose_and_double_nothing(eventic: str) -> None:
    assert increments_under_termination(eventic, 3, 80) == []


def test_terminations_reach_a_store_that_does_not_try_again(eventic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: without the repetition the errors of lost connections come through."""
    monkeypatch.setattr(Database, "persist", lambda _self, work, _recover=None: work())
    assert increments_under_termination(eventic, 3, 80) != []


def test_units_of_work_under_termination_are_whole_or_refused(eventic: str) -> None:
    """Each either is stored whole, or raises StoreUnavailable and leaves memory as it was."""
    one, other = LedgerAccount(name="a"), LedgerAccount(name="b")
    done = refused = 0
    with Terminator(eventic):
        while refused < 5 or done < 20:
            before = (one.balance, one.version, other.balance, other.version)
            try:
                with Eventic.unit_of_work():
                    one.update(balance=one.balance - 1, transfer=f"{done} {refused}")
                    LedgerAccount.where(group="none").count()
                    other.update(balance=other.balance + 1, transfer=f"{done} {refused}")
                done += 1
            except StoreUnavailable:
                refused += 1
                assert (one.balance, one.version, other.balance, other.version) == before
    assert (one.balance, other.balance, one.version, other.version) == (-done, done, done, done)
    assert table_problems(eventic) == []
    assert ledger_problems(eventic) == []
    one.balance += 0
    assert LedgerAccount.hydrate(one.id) == one


def test_lost_unit_of_work_restores_memory_and_stores_nothing(eventic: str) -> None:
    account, counter = LedgerAccount(name="a"), LedgerCounter()

    def lose_the_connection() -> None:
        with Eventic.unit_of_work():
            account.name = "b"
            account.properties.add(seen=True)
            counter.value = 7
            own = Eventic.connection().exec_driver_sql("select pg_backend_pid()").scalar_one()
            rows(eventic, "select pg_terminate_backend(%s)", own)
            account.balance = 9

    with pytest.raises(StoreUnavailable):
        lose_the_connection()
    assert (account.name, account.balance, account.version, dict(account.properties)) == ("a", 0, 0, {})
    assert (counter.value, counter.version) == (0, 0)
    assert [v for v, _ in versions(eventic, account.id)] == [0]
    account.name = "c"
    counter.value = 1
    assert ledger_problems(eventic) == []
    assert [d["value"] for _, d in versions(eventic, counter.id)] == [0, 1]


# -- the reply is lost


class Proxy:
    """Stands between client and server and can lose a reply, or cut the client off while the server works on."""

    def __init__(self, url: str) -> None:
        self._target = conninfo_to_dict(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._marker: bytes | None = None
        self._wait_for_reply = True
        self.cuts = 0
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{self._target['dbname']}?sslmode=disable&gssencmode=disable"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, marker: bytes, *, wait_for_reply: bool) -> None:
        """Cut the client off after its next message with `marker`; before the server has answered, or after."""
        self._marker, self._wait_for_reply = marker, wait_for_reply

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            each.close()

    def _connect(self) -> socket.socket:
        host, port = str(self._target.get("host", "127.0.0.1")), int(self._target.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            self._sockets += [client, server]
            cut = threading.Event()
            threading.Thread(target=self._to_server, args=(client, server, cut), daemon=True).start()
            threading.Thread(target=self._to_client, args=(client, server, cut), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        try:
            while data := client.recv(65536):
                if self._marker is None or self._marker not in data:
                    server.sendall(data)
                    continue
                self._marker = None
                self.cuts += 1
                cut.set()
                server.sendall(data)
                if not self._wait_for_reply:
                    client.shutdown(socket.SHUT_RDWR)
                return  # the server's side stays open: it works on
            server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _to_client(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        try:
            while data := server.recv(65536):
                if cut.is_set():
                    client.shutdown(socket.SHUT_RDWR)  # the reply is there, and is lost
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.fixture
def proxy(migrated_url: str) -> Iterator[Proxy]:
    """Records connected through a proxy."""
    with closing(Proxy(migrated_url)) as between:
        Eventic.init(name="tests", database_url=between.url)
        yield between
        Eventic.shutdown()


def lose_reply_of_bare_writes(proxy: Proxy) -> UUID:
    """Create and assign while each reply is lost; gives the record, which then holds 3."""
    LedgerCounter()  # writes the note of its class
    proxy.cut(b"insert into eventic.records (", wait_for_reply=True)
    counter = LedgerCounter(value=1)
    assert (counter.version, counter.value) == (0, 1)
    proxy.cut(b"insert into eventic.records (", wait_for_reply=True)
    counter.value = 2
    assert (counter.version, counter.value) == (1, 2)
    counter.value = 3
    assert proxy.cuts == 2
    assert LedgerCounter.hydrate(counter.id) == counter
    return counter.id


def test_write_whose_reply_was_lost_is_found(proxy: Proxy, migrated_url: str) -> None:
    found = versions(migrated_url, lose_reply_of_bare_writes(proxy))
    assert [(v, d["value"]) for v, d in found] == [(0, 1), (1, 2), (2, 3)]
    assert table_problems(migrated_url) == []


def test_write_whose_reply_was_lost_fails_without_the_question(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: a store that repeats without asking runs into its own write."""
    monkeypatch.setattr(postgres.PostgresStore, "_outcome", lambda _self, _appends: None)
    with pytest.raises(Exception, match=r"stored already|conflict"):
        lose_reply_of_bare_writes(proxy)


def test_several_records_whose_reply_was_lost_are_found(proxy: Proxy, migrated_url: str) -> None:
    one, other = LedgerAccount(name="a"), LedgerAccount(name="b")
    proxy.cut(b"insert into eventic.record_keys", wait_for_reply=True)
    with Eventic.unit_of_work():
        one.update(name="b2", balance=-1, transfer="t")
        other.update(name="a2", balance=1, transfer="t")
    assert proxy.cuts == 1
    assert (one.version, other.version) == (1, 1)
    assert (LedgerAccount.hydrate(one.id), LedgerAccount.hydrate(other.id)) == (one, other)
    assert one.stamp == LedgerAccount.hydrate(one.id).stamp
    assert table_problems(migrated_url) + ledger_problems(migrated_url) + torn_moments(migrated_url) == []


def commit_with_lost_reply(proxy: Proxy, account: LedgerAccount) -> None:
    """Rename in a unit of work of two flushes whose commit's reply is lost."""
    with Eventic.unit_of_work():
        account.name = "b"
        LedgerAccount.where(group="none").count()
        account.balance = 5
        LedgerAccount.where(group="none").count()
        account.balance = 0
        proxy.cut(b"COMMIT", wait_for_reply=True)
    assert proxy.cuts == 1


def test_commit_whose_reply_was_lost_is_found(proxy: Proxy, migrated_url: str) -> None:
    account = LedgerAccount(name="a")
    commit_with_lost_reply(proxy, account)
    assert (account.name, account.version) == ("b", 3)
    assert LedgerAccount.hydrate(account.id) == account
    assert [v for v, _ in versions(migrated_url, account.id)] == [0, 1, 2, 3]
    assert table_problems(migrated_url) + ledger_problems(migrated_url) == []


def test_commit_whose_reply_was_lost_fails_without_the_question(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: without looking for its versions, a commit that happened is taken for lost."""
    account = LedgerAccount(name="a")
    commit = PostgresTransaction.commit

    def commit_blindly(self: PostgresTransaction) -> None:
        self.written = []
        commit(self)

    monkeypatch.setattr(PostgresTransaction, "commit", commit_blindly)
    with pytest.raises(StoreUnavailable):
        commit_with_lost_reply(proxy, account)
    assert account.version == 0


def test_commit_whose_reply_was_lost_is_found_after_a_nested_rollback(proxy: Proxy, migrated_url: str) -> None:
    """The last version the transaction wrote was rolled back with its savepoint; the others are stored."""
    account, counter = LedgerAccount(name="a"), LedgerCounter()

    def fail_inside() -> None:
        with Eventic.unit_of_work():
            counter.value = 9
            LedgerCounter.where().count()
            message = "inner"
            raise LookupError(message)

    with Eventic.unit_of_work():
        account.name = "b"
        LedgerAccount.where(group="none").count()
        with pytest.raises(LookupError):
            fail_inside()
        proxy.cut(b"COMMIT", wait_for_reply=True)
    assert proxy.cuts == 1
    assert (account.name, account.version, counter.value, counter.version) == ("b", 1, 0, 0)
    assert [v for v, _ in versions(migrated_url, account.id)] == [0, 1]
    assert [v for v, _ in versions(migrated_url, counter.id)] == [0]


def while_the_server_works_on(proxy: Proxy, url: str, lock: str, write: Callable[[], None]) -> list[BaseException]:
    """Cut a writer off whose statement waits for a lock, let it try again, then let both go on; give its errors."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            write()
        except BaseException as error:  # noqa: BLE001 - given to the caller
            errors.append(error)

    with psycopg.connect(url) as holder:
        holder.execute(lock)
        proxy.cut(b"insert into eventic.records (", wait_for_reply=False)
        writer = threading.Thread(target=run)
        writer.start()
        # The first attempt, which nobody listens to, and the second, which did not find the first one's version.
        while writer.is_alive() and rows(url, WAITING) != [(2,)]:
            time.sleep(0.01)
        holder.rollback()
    writer.join()
    assert proxy.cuts == 1
    return errors


def test_assignment_cut_off_while_it_waits_is_stored_once(proxy: Proxy, migrated_url: str) -> None:
    """The lost attempt commits while the second one runs: that is no conflict with somebody else."""
    counter = LedgerCounter()
    lock = f"select from eventic.records where id = '{counter.id}' and superseded_at is null for update"
    errors = while_the_server_works_on(proxy, migrated_url, lock, lambda: counter.update(value=1))
    assert [(v, d["value"]) for v, d in versions(migrated_url, counter.id)] == [(0, 0), (1, 1)]
    assert errors == []
    assert (counter.value, counter.version) == (1, 1)


def test_creation_cut_off_while_it_waits_is_stored_once(proxy: Proxy, migrated_url: str) -> None:
    """The same for a new record with a unique key, which the second attempt finds taken, by itself."""
    LedgerAccount(name="first")
    made: list[LedgerAccount] = []
    lock = "lock table eventic.record_keys in share mode"
    errors = while_the_server_works_on(proxy, migrated_url, lock, lambda: made.append(LedgerAccount(name="second")))
    assert rows(migrated_url, "select count(*) from eventic.records") == [(2,)]
    assert ledger_problems(migrated_url) == []
    assert errors == []
    assert [account.name for account in made] == ["second"]
