"""Schema evolution: upcasters that lift stored documents to the class's present schema version.

Pure. Reading lifts, writing never rewrites old versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.errors import EvolutionError, InvalidRecordClass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


def check_upcasters(name: str, schema_version: int, upcasters: Mapping[int, Upcaster]) -> None:
    """Refuse a class whose numbers cannot mean anything.

    Raises:
        InvalidRecordClass: `schema_version` below 1, or an upcaster from a version outside `1..schema_version - 1`.
    """
    if schema_version < 1:
        message = f"{name}: schema_version is {schema_version}, it starts at 1."
        raise InvalidRecordClass(message)
    for source in upcasters:
        if not 1 <= source < schema_version:
            message = (
                f"{name}: an upcaster from schema version {source} leads nowhere, the class is at {schema_version}. "
                "The key is the version it lifts from; the result is one higher."
            )
            raise InvalidRecordClass(message)


def unreachable(schema_version: int, upcasters: Mapping[int, Upcaster], stored: int) -> str | None:
    """Say why a stored schema version cannot be lifted to `schema_version`; `None` when it can."""
    if stored > schema_version:
        return f"it is newer than the class, which is at {schema_version}: deploy the newer code"
    missing = [source for source in range(stored, schema_version) if source not in upcasters]
    return f"no upcaster from {', '.join(map(str, missing))}: add upcasters={{{missing[0]}: ...}}" if missing else None


def upcast(
    name: str, document: dict[str, Any], *, stored: int, schema_version: int, upcasters: Mapping[int, Upcaster]
) -> dict[str, Any]:
    """Lift a decoded document from schema version `stored` to `schema_version`, one upcaster at a time.

    Raises:
        EvolutionError: The data are newer than the class, or an upcaster is missing.
    """
    if problem := unreachable(schema_version, upcasters, stored):
        message = f"{name} cannot read data of schema version {stored}: {problem}."
        raise EvolutionError(message)
    for source in range(stored, schema_version):
        document = upcasters[source](document)
    return document
