"""Versions as the parameters of the statements that write them: a row, or columns of many.

Owns the order of both. Pure; what the statements make of them is in `sql/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventic_core.records.port import Append

_Link = tuple[str | None, bool, str | None, str | None]
"""A version of a chain: what is sent of its data, whether that is whole, its reason and its calls."""
_LAST = (None, False)
"""What is sent of the last version of a chain, whose data is not shared."""


def of_one(append: Append) -> tuple[Any, ...]:
    """Give the parameters of a version, in the order of the insert."""
    return (
        append.version_id,
        append.id,
        append.version,
        append.class_type,
        append.data.decode(),
        append.tombstone,
        append.schema_version,
        append.actor,
        append.reason,
        append.correlation_id,
        append.workflow_id,
        append.step_id,
        append.calls,
    )


def of_rows(appends: Sequence[Append], before: Sequence[str | None] | None) -> list[list[Any]]:
    """Give the columns of several versions, in the order of `part_input`; `before` as in `Moves`."""
    made: dict[tuple[Any, ...], int] = {}
    sent = [
        (
            append.version_id,
            append.id,
            append.version,
            append.data.decode(),
            append.step_id,
            made.setdefault(
                (
                    append.class_type,
                    append.tombstone,
                    append.schema_version,
                    append.actor,
                    append.reason,
                    append.correlation_id,
                    append.workflow_id,
                    append.calls,
                    None if before is None else before[place],
                ),
                len(made) + 1,
            ),
        )
        for place, append in enumerate(appends)
    ]
    return [*_columns(sent), *_columns(made)]


def of_chains(appends: Sequence[Append], before: Sequence[str | None]) -> list[list[Any]]:
    """Give the columns of several versions and those they pass through, in the order of `part_chains`."""
    made: dict[tuple[Any, ...], int] = {}
    sent = []
    for place, append in enumerate(appends):
        links: list[_Link] = [(*_LAST, append.reason, append.calls)]
        if append.passed:
            assert append.document is not None
            links[:0] = [(*_sent(one.document, append.document), one.reason, one.calls) for one in append.passed]
        of_all = (
            append.class_type,
            append.schema_version,
            append.actor,
            append.correlation_id,
            append.workflow_id,
            before[place],
        )
        chain = made.setdefault((tuple(links), append.tombstone, of_all), len(made) + 1)
        sent.append((append.version_id, append.id, append.version, append.data.decode(), append.step_id, chain))
    linked = [
        (chain, place, len(links), is_deleted and place == len(links), *link, *of_all)
        for (links, is_deleted, of_all), chain in made.items()
        for place, link in enumerate(links, 1)
    ]
    return [*_columns(sent), *_columns(linked)]


def _sent(passed: Mapping[str, Any], last: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Give a version that is passed through as what differs from the last one, or whole if that lacks something."""
    try:
        if len(passed) == len(last):
            return to_json({key: value for key, value in passed.items() if last[key] is not value}).decode(), False
    except KeyError:
        pass
    return to_json(passed).decode(), True


def _columns(sent: Sequence[tuple[Any, ...]] | Mapping[tuple[Any, ...], int]) -> list[list[Any]]:
    return [list(column) for column in zip(*sent, strict=True)]
