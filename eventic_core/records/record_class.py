"""What makes a class a record class: its definition, the checks when it is defined, and the registry of names.

Owns the metaclass. Knows nothing of scopes, queries or the store.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, dataclass_transform, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretBytes, SecretStr

# The only door to a metaclass of one's own; a test guards each name.
from pydantic._internal._model_construction import ModelMetaclass, build_lenient_weakvaluedict
from pydantic._internal._typing_extra import parent_frame_namespace
from pydantic_core import to_json

from eventic_core.errors import DuplicateRegistration, InvalidRecordClass
from eventic_core.records.evolution import check_upcasters
from eventic_core.records.methods import check_run, wrap_methods

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from eventic_core.records.evolution import Upcaster
    from eventic_core.records.fields import Fields
    from eventic_core.records.methods import RunTimes
    from eventic_core.records.record import Record
    from eventic_core.records.states import StateMachine

_KEYWORDS = (
    "class_type",
    "schema_version",
    "upcasters",
    "unique",
    "indexes",
    "merge",
    "concurrency",
    "ordered",
    "run",
    "states",
)
DEFAULT_CONCURRENCY = 16
"""Pieces of work of one queue that a worker runs at a time: waiting for Postgres and the network, not for a core."""
IDENTITY = ("id", "version", "version_id")
"""Not fields: they come from the store, and a body that holds one is refused."""


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """A key that no two current records of `scope` and its subclasses share; a null in it frees it."""

    scope: str
    fields: tuple[str, ...]

    @property
    def name(self) -> str:
        """The fields joined by a comma."""
        return ",".join(self.fields)

    def value_in(self, document: dict[str, Any]) -> str | None:
        """Give the key's canonical JSON in a document; `None` when a field of it is null."""
        values = [document.get(name) for name in self.fields]
        if any(value is None for value in values):
            return None
        return to_json(values if len(values) > 1 else values[0]).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A record class's own settings: its class keywords, completed and checked, and what its fields are like.

    Attributes:
        frozen: Fields that cannot be assigned.
        guarded: Fields that may hold lists, dicts or sets.
    """

    class_type: str
    schema_version: int = 1
    upcasters: Mapping[int, Upcaster] = field(default_factory=dict)
    unique: tuple[UniqueKey, ...] = ()
    indexes: tuple[str, ...] = ()
    merge: Literal["disjoint"] | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    ordered: bool = True
    run: RunTimes = "now"
    states: StateMachine | None = None
    frozen: frozenset[str] = frozenset()
    guarded: tuple[str, ...] = ()

    @property
    def queue_name(self) -> str:
        """The class's queue: `queue_<snake_case>`, with runs of capitals as one word."""
        return f"queue_{snake_case(self.class_type)}"


def snake_case(name: str) -> str:
    """Give `HTTPJob` as `http_job`."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


_registry: dict[str, weakref.ref[type[Any]]] = {}
_families: dict[type[Any], tuple[str, ...]] = {}


def _register(cls: type[Any], class_type: str) -> None:
    reference = _registry.get(class_type)
    known = reference() if reference else None
    if known is not None and not _may_replace(known, cls):
        message = (
            f"Two record classes are stored as {class_type!r}: {known.__module__}.{known.__qualname__} and "
            f'{cls.__module__}.{cls.__qualname__}. Give one of them class_type="...".'
        )
        raise DuplicateRegistration(message)
    _registry[class_type] = weakref.ref(cls)
    _families.clear()


def _may_replace(known: type[Any], new: type[Any]) -> bool:
    if "<locals>" in known.__qualname__ + new.__qualname__:
        return True
    modules = {known.__module__, new.__module__}
    # A script imported again under its module name defines its classes twice.
    return known.__qualname__ == new.__qualname__ and (len(modules) == 1 or "__main__" in modules)


def registered() -> Iterator[type[Any]]:
    """Give the record classes this process has defined."""
    for reference in list(_registry.values()):
        cls = reference()
        if cls is not None:
            yield cls


def lineage(class_type: str) -> tuple[str, ...]:
    """Name the stored class types of a class and the record classes it inherits from."""
    reference = _registry.get(class_type)
    known = reference() if reference else None
    if known is None:
        return (class_type,)
    definitions = [vars(parent).get("__eventic__") for parent in known.__mro__]
    return tuple(dict.fromkeys(found.class_type for found in definitions if found is not None and found.class_type))


def find_class(class_type: str) -> type[Any] | None:
    """Give the record class stored under a name; `None` if this process has not defined it."""
    reference = _registry.get(class_type)
    return reference() if reference else None


def declared_indexes() -> Iterator[tuple[str, str, Literal["json", "text"]]]:
    """Give `(class_type, field, kind)` for every index that a class of this process declares."""
    from eventic_core.records.fields import kind_of
    from eventic_core.records.filters import Kind

    for cls in registered():
        for name in cls.__eventic__.indexes:
            kind = kind_of(cls.model_fields[name].annotation)
            yield cls.__eventic__.class_type, name, "text" if kind is Kind.TEXT else "json"


def family(cls: type[Any]) -> tuple[str, ...]:
    """Name the stored class types of a class and its subclasses."""
    if cls not in _families:
        origin = cls.__pydantic_generic_metadata__["origin"] or cls
        names = {known.__eventic__.class_type for known in registered() if issubclass(known, origin)}
        _families[cls] = tuple(sorted(names | ({cls.__eventic__.class_type} if cls.__eventic__.class_type else set())))
    return _families[cls]


def class_for(cls: type[Any], class_type: str) -> type[Any] | None:
    """Give the class to read `class_type` as, seen from `cls`; `None` if it is no subclass of it."""
    if cls.__eventic__.class_type == class_type:
        return cls
    reference = _registry.get(class_type)
    known = reference() if reference else None
    return known if known is not None and class_type in family(cls) else None


@dataclass_transform(kw_only_default=True, field_specifiers=(Field, PrivateAttr))
class RecordMeta(ModelMetaclass):
    """Wraps methods, takes the class keywords, and makes calling the class store version 0."""

    __eventic__: Definition

    def __new__(  # noqa: D102 - the class keywords are documented at Record
        mcs,
        name: str,
        bases: tuple[type[Any], ...],
        namespace: dict[str, Any],
        *,
        class_type: str | None = None,
        schema_version: int | None = None,
        upcasters: Mapping[int, Upcaster] | None = None,
        unique: Sequence[str | Sequence[str]] = (),
        indexes: Sequence[str] = (),
        merge: Literal["disjoint"] | None = None,
        concurrency: int | None = None,
        ordered: bool | None = None,
        run: RunTimes | None = None,
        states: StateMachine | None = None,
        **kwargs: Any,
    ) -> Any:
        parents = [base for base in bases if isinstance(base, RecordMeta)]
        generic = (kwargs.get("__pydantic_generic_metadata__") or {}).get("origin")
        if "__eventic_base__" in namespace:  # Record itself, and what it is made of
            root: Any = super().__new__(mcs, name, bases, namespace, **kwargs)
            root.__eventic__ = Definition(class_type="")
            return root
        _refuse_init(name, bases, namespace)
        _refuse_misspelt(name, kwargs)
        namespace = {**namespace, **wrap_methods(namespace, _mixin_methods(bases))}
        if kwargs.setdefault("__pydantic_reset_parent_namespace__", True):
            # Pydantic would look for local types in this frame instead of the one that holds the class statement.
            namespace["__pydantic_parent_namespace__"] = build_lenient_weakvaluedict(parent_frame_namespace())
            kwargs["__pydantic_reset_parent_namespace__"] = False
        inherited = parents[0].__eventic__
        cls: Any = super().__new__(mcs, name, bases, namespace, **kwargs)
        if generic is not None:
            cls.__eventic__ = generic.__eventic__
            if cls.__pydantic_complete__:
                check_fields(cls)
            return cls
        own_type = class_type or name
        cls.__eventic__ = Definition(
            class_type=own_type,
            schema_version=schema_version or inherited.schema_version,
            upcasters=inherited.upcasters if upcasters is None else dict(upcasters),
            unique=inherited.unique + tuple(UniqueKey(own_type, _names(spec)) for spec in unique),
            indexes=tuple(dict.fromkeys((*inherited.indexes, *indexes))),
            merge=merge or inherited.merge,
            concurrency=inherited.concurrency if concurrency is None else concurrency,
            ordered=inherited.ordered if ordered is None else ordered,
            run=run or inherited.run,
            states=states or inherited.states,
        )
        check_run(run, name)
        if cls.__eventic__.concurrency < 1:
            message = f"{name}: concurrency={concurrency} would let no work of the class run. Say at least 1."
            raise InvalidRecordClass(message)
        check_upcasters(name, 1 if schema_version is None else schema_version, upcasters or {})
        if cls.__pydantic_complete__:
            check_fields(cls)
        _register(cls, own_type)
        return cls

    if not TYPE_CHECKING:  # visible to checkers, it would hide the constructor's own signature

        def __call__(cls, /, **values: Any) -> Any:
            """Store version 0; see Record."""
            return cls._create(values)

    def draft(cls, values: dict[str, Any]) -> Any:
        """Validate values as a call of the class would, without storing anything."""
        return super().__call__(**values)

    @property
    def fields(cls) -> Fields:
        """The class's fields as expressions for `where` and `order_by`; properties as `fields.properties["name"]`."""
        from eventic_core.records.fields import Fields

        return Fields(cast("type[Record]", cls))

    @property
    def _queue_name(cls) -> str:
        return cls.__eventic__.queue_name


def _names(spec: str | Sequence[str]) -> tuple[str, ...]:
    return (spec,) if isinstance(spec, str) else tuple(spec)


def _refuse_init(name: str, bases: tuple[type[Any], ...], namespace: dict[str, Any]) -> None:
    culprit = name if "__init__" in namespace else None
    for base in bases:
        for parent in base.__mro__:
            if "__init__" in vars(parent) and parent is not object and not issubclass(parent, BaseModel):
                culprit = parent.__name__
    if culprit:
        message = (
            f"{name}: {culprit} defines __init__, which validation would call, and so store records it only checks. "
            "Use model_post_init."
        )
        raise InvalidRecordClass(message)


def _refuse_misspelt(name: str, keywords: dict[str, Any]) -> None:
    for keyword in keywords.keys() - ConfigDict.__annotations__.keys():
        near = difflib.get_close_matches(keyword, _KEYWORDS, n=1)
        if near:
            message = f"{name}: {keyword} is no class keyword. Did you mean {near[0]}?"
            raise InvalidRecordClass(message)


def _mixin_methods(bases: tuple[type[Any], ...]) -> dict[str, Any]:
    mixins = [base for base in bases if not issubclass(base, BaseModel) and base.__module__ not in ("typing", "abc")]
    methods: dict[str, Any] = {}
    for mixin in reversed(mixins):
        for parent in reversed(mixin.__mro__[:-1]):
            methods.update(vars(parent))
    return methods


def check_fields(cls: Any) -> None:
    """Refuse fields that could not be stored whole, and keys or indexes of fields that do not exist.

    Raises:
        InvalidRecordClass: Names the field and the remedy.
    """
    definition: Definition = cls.__eventic__
    bases = [parent for parent in cls.__mro__ if "__eventic_base__" in vars(parent)]
    taken = {*IDENTITY, *vars(RecordMeta), *(name for base in bases for name in vars(base))}
    for name, info in cls.model_fields.items():
        where = f"{cls.__name__}.{name}"
        if name != "properties" and name in taken:
            message = f"{where}: the name belongs to every record. Choose another one."
            raise InvalidRecordClass(message)
        if info.exclude or info.exclude_if:
            message = f"{where}: an excluded field would not be stored. Drop exclude=True, or use a private attribute."
            raise InvalidRecordClass(message)
        if problem := _unstorable(info.annotation):
            message = f"{where}: {problem}"
            raise InvalidRecordClass(message)
    if cls.model_config.get("extra") == "allow":
        message = f'{cls.__name__}: extra="allow" is not for records. Free-form values go into properties.'
        raise InvalidRecordClass(message)
    for names in (*(key.fields for key in definition.unique), definition.indexes):
        for name in names:
            if name not in cls.model_fields:
                message = f"{cls.__name__}: unique and indexes name fields; {name!r} is none of its fields."
                raise InvalidRecordClass(message)
    frozen = frozenset(name for name, info in cls.model_fields.items() if info.frozen)
    guarded = tuple(name for name, info in cls.model_fields.items() if _may_hold_containers(info.annotation))
    cls.__eventic__ = dataclasses.replace(definition, frozen=frozen, guarded=guarded)


def _may_hold_containers(annotation: Any) -> bool:
    from eventic_core.records.fields import kind_of
    from eventic_core.records.filters import Kind

    return kind_of(annotation) is Kind.JSON


def _unstorable(annotation: Any) -> str | None:
    if isinstance(annotation, type):
        if isinstance(annotation, RecordMeta):
            return f"a field holds a reference to another record, not the record: write Ref[{annotation.__name__}]."
        if issubclass(annotation, BaseModel) and not annotation.model_config.get("frozen"):
            return (
                f"{annotation.__name__} must be frozen (model_config = ConfigDict(frozen=True)), or changes get lost."
            )
        if dataclasses.is_dataclass(annotation) and not annotation.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            return f"{annotation.__name__} must be a frozen dataclass, or changes get lost."
        if issubclass(annotation, (SecretStr, SecretBytes)):
            return "a secret is stored masked. Keep it in a secret store and its name in the record."
        if issubclass(annotation, BaseModel):
            return next(filter(None, (_unstorable(info.annotation) for info in annotation.model_fields.values())), None)
    if getattr(get_origin(annotation), "__eventic_ref__", False):
        return None
    return next(filter(None, map(_unstorable, get_args(annotation))), None)
