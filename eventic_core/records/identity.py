"""What every record object is: an id, a version, a stamp, and values of fields; copies and pickles keep all of it.

The base of the record class: identity, equality and what Pydantic asks of a class. Stores and reads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Unpack
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations of computed fields

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, computed_field, field_validator

from eventic_core.errors import ChangedOutsideScope, Invalid, InvalidRecord
from eventic_core.records import state
from eventic_core.records.bag import Properties
from eventic_core.records.containers import guard
from eventic_core.records.editing import current_scope
from eventic_core.records.port import Cursor
from eventic_core.records.record_class import IDENTITY, RecordMeta, check_fields
from eventic_core.records.stored_form import as_stored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal, Self

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from eventic_core.records.evolution import Upcaster
    from eventic_core.records.record_class import Definition
    from eventic_core.records.scope import Scope
    from eventic_core.records.stamp import Stamp
    from eventic_core.records.states import StateMachine


class Identified(BaseModel, metaclass=RecordMeta):
    """A Pydantic model that knows which stored version it is, if any; see `Record`."""

    __slots__ = ("_id", "_scope", "_stored")
    __eventic_base__: ClassVar[bool] = True
    __eventic__: ClassVar[Definition]

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # so that a NaN in a free-form value is found, not stored as null
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    properties: Properties = Field(default_factory=Properties)

    if TYPE_CHECKING:
        _id: UUID = PrivateAttr()
        _stored: state.Stored | None = PrivateAttr()
        _scope: Scope | None = PrivateAttr()
        id: UUID = Field(default_factory=UUID)

        def __init_subclass__(
            cls,
            *,
            class_type: str | None = None,
            schema_version: int | None = None,
            upcasters: Mapping[int, Upcaster] | None = None,
            unique: Sequence[str | Sequence[str]] = (),
            indexes: Sequence[str] = (),
            merge: Literal["disjoint"] | None = None,
            concurrency: int | None = None,
            ordered: bool | None = None,
            run: Literal["now", "both"] | None = None,
            states: StateMachine | None = None,
            **config: Unpack[ConfigDict],
        ) -> None: ...

    else:

        @computed_field
        @property
        def id(self) -> UUID:
            """The record's id, the same for all its versions."""
            return state.id_of(self)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def version(self) -> int:
        """The version this object is; -1 for a draft."""
        stored = state.stored_of(self)
        return -1 if stored is None else stored.version

    @computed_field  # type: ignore[prop-decorator]
    @property
    def version_id(self) -> UUID | None:
        """The version's own id; `None` for a draft."""
        stored = state.stored_of(self)
        return None if stored is None else stored.stamp.version_id

    def _before_store(self) -> None:
        """Check what fields alone cannot, before a version is written; raises to store nothing. May read records."""

    @property
    def is_stored(self) -> bool:
        """Whether this object is a stored version; a draft is not."""
        return state.stored_of(self) is not None

    @property
    def stamp(self) -> Stamp:
        """Who wrote this version, when, why and in which step.

        Raises:
            Invalid: A draft has none.
        """
        stored = state.stored_of(self)
        if stored is None:
            message = f"This {type(self).__name__} is a draft and has no stamp. Store it with save()."
            raise Invalid(message)
        return stored.stamp

    @property
    def deleted(self) -> bool:
        """Whether this version is a tombstone."""
        stored = state.stored_of(self)
        return stored is not None and stored.stamp.tombstone

    @property
    def cursor(self) -> Cursor:
        """This version's place in the change feed."""
        return Cursor(self.stamp.xid, self.stamp.position)

    def _before_change(self) -> None:
        scope = current_scope()
        if scope is not None:
            state.refuse_deleted(self)
            scope.enlist(self)
        elif state.is_tracked(self):
            message = (
                f"{type(self).__name__} {self.id}: a list, dict or set of a stored record changes only inside a scope, "
                "or the change would be lost. Use `with record.edit():`, assign a new value, or properties.add()."
            )
            raise ChangedOutsideScope(message)

    def _refuse_name(self, name: str) -> NoReturn:
        cls = type(self)
        if name in IDENTITY or isinstance(getattr(cls, name, None), property):
            message = f"{cls.__name__}.{name} cannot be assigned: it comes from the store."
        elif name in cls.model_fields:
            message = f"{cls.__name__}.{name} cannot be removed: assign another value."
        else:
            fields = ", ".join(cls.model_fields)
            message = (
                f"{cls.__name__} has no field {name!r}; it has {fields}. Free-form values go into properties.add()."
            )
        raise InvalidRecord(message)

    # -- copies, pickles and equality

    def __copy__(self) -> Self:
        return self._same_identity(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self._same_identity(super().__deepcopy__(memo))

    def _same_identity(self, copy: Self) -> Self:
        if self.is_stored:
            object.__setattr__(copy, "_id", self.id)
            object.__setattr__(copy, "_stored", self._stored)
        object.__setattr__(copy, "__dict__", {name: guard(value, copy) for name, value in copy.__dict__.items()})
        return copy

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the object, which then is the same stored version; `save` stores what `update` changed.

        Raises:
            InvalidRecord: `update` names what is no field.
        """
        for name in update or ():
            if name not in type(self).model_fields:
                self._refuse_name(name)
        return super().model_copy(update=update, deep=deep)

    def __getstate__(self) -> dict[Any, Any]:
        stored = state.stored_of(self)
        # As text, which is compared with care: other code may read it, whose class gives another document.
        identity = None if stored is None else (self.id, stored._replace(data=state.text_of(stored)))
        return {**super().__getstate__(), "eventic": identity}

    def __setstate__(self, pickled: dict[Any, Any]) -> None:
        identity = pickled.pop("eventic")
        super().__setstate__(pickled)
        if identity is not None:
            object.__setattr__(self, "_id", identity[0])
            object.__setattr__(self, "_stored", identity[1])
            state.guard_containers(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identified) or type(self) is not type(other) or self.is_stored != other.is_stored:
            return False
        same = not self.is_stored or (self.id, self.version) == (other.id, other.version)
        fields = type(self).model_fields
        return same and all(self.__dict__.get(name) == other.__dict__.get(name) for name in fields)

    def __hash__(self) -> int:
        if not self.is_stored:
            message = f"A {type(self).__name__} draft cannot be hashed until it is stored."
            raise TypeError(message)
        return hash(self.id)

    # -- what Pydantic asks

    @field_validator("properties")
    @classmethod
    def _refuse_field_names(cls, value: Properties) -> Properties:
        if not value:
            return value
        taken = sorted(name for name in value if name in cls.model_fields or name in IDENTITY)
        if taken:
            message = f"a property cannot have the name of a field: {', '.join(taken)}"
            raise ValueError(message)
        return value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = as_stored(handler(source))
        return schema

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        if "__eventic__" in vars(cls):
            check_fields(cls)
