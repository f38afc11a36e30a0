"""The property bag: free-form JSON that every record carries beside its declared fields.

Reads like a dict. `add` and `remove` are changes of the record, like an assignment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import JsonValue
from pydantic_core import core_schema

from eventic_core.records.containers import GuardedDict, plain

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler


class Properties(GuardedDict):
    """A record's properties: JSON values by name; no name may be that of a field.

    Each `add` and `remove` is one version of its own, or part of the open scope's. Other in-place changes are
    allowed inside a scope only.
    """

    __slots__ = ()

    def add(self, **values: JsonValue) -> None:
        """Set the named properties.

        Raises:
            InvalidRecord: A name is that of a field, or a value is not JSON; nothing changed.
            VersionConflict: Somebody wrote the record since it was read.
        """
        self._replace({**self._present(), **values})

    def remove(self, *names: str) -> None:
        """Drop the named properties; absent names are ignored."""
        self._replace({name: value for name, value in self._present().items() if name not in names})

    def list(self) -> dict[str, JsonValue]:
        """Give the properties as an ordinary dict of its own."""
        copy: dict[str, JsonValue] = plain(dict(self._present()))
        return copy

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return Properties, (dict(self),)

    def _present(self) -> Properties:
        reference = getattr(self, "_owner", None)
        owner = reference() if reference else None
        return owner.properties if owner is not None else self

    def _replace(self, values: dict[str, Any]) -> None:
        reference = getattr(self, "_owner", None)
        if reference is None:
            dict.clear(self)
            dict.update(self, values)
            return
        owner = reference()
        if owner is None:
            self._ask()
        owner.properties = values
        # A bag the caller still holds keeps showing what the record has.
        dict.clear(self)
        dict.update(self, owner.properties)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler(dict[str, JsonValue]))
