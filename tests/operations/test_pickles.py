"""Pickles: none is written, none can be loaded, and one that somebody plants in a table is refused."""

from __future__ import annotations

import ast
import base64
import pickle
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbos import _serialization

import eventic_core
from eventic_core import Eventic, NotSerialisable
from eventic_core.runtime import runs
from eventic_core.runtime.adapter import JsonSerializer

UNPICKLING = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib"}
ASIDE = {"automation/replay_findings.py"}
"""Keeps what a replay found in a temporary file of its own, which nobody else opens: no wire, and no table."""


def test_nothing_of_the_package_can_load_a_pickle() -> None:
    root = Path(eventic_core.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if UNPICKLING & {name.partition(".")[0] for name in names}:
                found.add(str(path.relative_to(root)))
    assert found == ASIDE


class Evil:
    """Leaves a file where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def planted(mark: Path) -> str:
    return base64.b64encode(pickle.dumps({"args": (Evil(mark),), "kwargs": {}})).decode()


def test_a_pickle_is_refused_wherever_dbos_reads_one(tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    pickle.loads(base64.b64decode(planted(mark)))
    assert mark.exists()  # what is planted works
    mark.unlink()
    for read in (
        _serialization.deserialize_value,
        _serialization.deserialize_args,
        _serialization.deserialize_exception,
    ):
        with pytest.raises(NotSerialisable, match="pickle"):
            read(planted(mark), "py_pickle", JsonSerializer())
    native = _serialization.WorkflowSerializationFormat.NATIVE
    assert _serialization.serialize_value({"a": [1]}, native, JsonSerializer())[0] == '{"a":[1]}'
    assert not mark.exists()


@Eventic.step(name="secrets.step")
def secret_step() -> int:
    return 1


@Eventic.workflow(name="secrets.flow")
def secret_flow(number: int) -> int:
    return secret_step() + secret_step() + number


PLANTED = {
    "gone": "delete from dbos.workflow_input where workflow_uuid = %(id)s",
    "inputs": "update dbos.workflow_status set inputs = %(p)s where workflow_uuid = %(id)s",
    "input": "update dbos.workflow_input set inputs = %(p)s where workflow_uuid = %(id)s",
    "kind": "update dbos.workflow_status set serialization = 'py_pickle' where workflow_uuid = %(id)s",
    "step": "insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, serialization) "
    "values (%(id)s, 1, 'secrets.step', %(p)s, 'py_pickle')",
}


@pytest.mark.parametrize(
    "how", [("inputs", "gone", "kind"), ("input",), ("kind", "input"), ("step",), ("step", "kind")]
)
def test_a_pickle_that_is_planted_is_never_loaded_and_ends_the_run(
    how: tuple[str, ...], workers: str, tmp_path: Path
) -> None:
    mark = tmp_path / "loaded"
    handle = Eventic.queue("secrets").enqueue(secret_flow, 1, delay_seconds=3600)
    with psycopg.connect(workers, autocommit=True) as connection:
        for one in how:
            connection.execute(PLANTED[one], {"p": planted(mark), "id": handle.id})
    runs.resume(handle.id)
    with pytest.raises(Exception, match=r".") as refused:
        handle.result(timeout_seconds=100)
    assert not isinstance(refused.value, TimeoutError)
    assert not mark.exists()
    assert runs.get_run(handle.id).status in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def test_a_planted_outcome_is_never_loaded(workers: str, tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    handle = Eventic.queue("secrets").enqueue(secret_flow, 1)
    assert handle.result(timeout_seconds=100) == 3
    with psycopg.connect(workers, autocommit=True) as connection:
        for table in ("workflow_output", "workflow_status"):
            query = f"update dbos.{table} set output = %s where workflow_uuid = %s"
            connection.execute(query, (planted(mark), handle.id))
        connection.execute(
            "update dbos.workflow_status set serialization = 'py_pickle' where workflow_uuid = %s", (handle.id,)
        )
    with pytest.raises(Exception, match=r"."):
        Eventic.handle(handle.id).result(timeout_seconds=5)
    assert isinstance(runs.get_run(handle.id).result, str)
    assert not mark.exists()
