"""The public surface is what `__all__` says, and stays what it is until somebody means to change it."""

from __future__ import annotations

import inspect

import pytest
from pydantic._internal import _model_construction, _typing_extra

import eventic_core
from eventic_core import Record
from eventic_core.errors import EventicError

NAMES = """
    AsOf Blame BlockingInLoop Change ChangedOutsideScope ChildRunFailed ConfigurationError Conflict Cursor CycleFound
    Diff DuplicateKey DuplicateRegistration EndlessMap Eventic EventicError EvolutionError Filter Handle HistoryRemoved
    Invalid InvalidBackfill InvalidBranch InvalidDag InvalidFilter InvalidRecord InvalidRecordClass InvalidSchedule
    InvalidStateError MigrationRequired Nondeterminism NotAllowed NotFound NotInitialised NotLaunched NotRegistered
    NotSerialisable Page Properties Query Queue Record RecordDeleted RecordExists RecordNotFound Ref RemoteError
    ReplayDiverged ResultTimeout Retry RunCancelled RunNotFound ScopeError Stamp StoreUnavailable StoredVersion
    UnknownJob UnknownRule VersionConflict WriteInStep evented later on plain
""".split()  # noqa: SIM905 - eighty short lines would hide what is pinned


def test_public_names_are_pinned() -> None:
    assert sorted(eventic_core.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(eventic_core))
    with pytest.raises(AttributeError, match="nonsense"):
        eventic_core.nonsense  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_public_name_has_a_contract(name: str) -> None:
    public = getattr(eventic_core, name)
    assert inspect.getdoc(public)
    if inspect.isclass(public) and not issubclass(public, EventicError):
        own = [
            (attribute, value)
            for attribute, value in vars(public).items()
            if not attribute.startswith("_") and inspect.isroutine(inspect.unwrap(getattr(value, "__func__", value)))
        ]
        assert [attribute for attribute, _value in own if not inspect.getdoc(getattr(public, attribute))] == []


def test_every_error_is_public() -> None:
    def tree(error: type[EventicError]) -> set[str]:
        return {error.__name__}.union(*(tree(child) for child in error.__subclasses__()))

    ours = {name for name in tree(EventicError) if hasattr(__import__("eventic_core.errors").errors, name)}
    assert ours <= set(NAMES)


def test_pydantic_still_has_what_the_metaclass_needs() -> None:
    """Contract with the private names of Pydantic that `record_class` uses."""
    assert issubclass(type(Record), _model_construction.ModelMetaclass)
    parameters = inspect.signature(_model_construction.ModelMetaclass.__new__).parameters
    assert {"__pydantic_generic_metadata__", "__pydantic_reset_parent_namespace__"} <= set(parameters)
    assert "parent_depth" in inspect.signature(_typing_extra.parent_frame_namespace).parameters
    assert callable(_model_construction.build_lenient_weakvaluedict)
