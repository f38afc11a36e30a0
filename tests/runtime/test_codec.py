"""The JSON codec: what comes back is what went in; the rest is refused by name, and nothing is imported."""

from __future__ import annotations

import asyncio
import enum
import json
import math
import socket
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, namedtuple
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, create_model, field_validator

from eventic_core import (
    Eventic,
    EventicError,
    NotInitialised,
    NotRegistered,
    NotSerialisable,
    Record,
    RecordNotFound,
    RemoteError,
    VersionConflict,
)
from eventic_core import errors as eventic_errors
from eventic_core.runtime import codec
from eventic_core.runtime.codec import decode, decode_error, dumps, encode, encode_error, loads

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
WHAT = "argument 'x' of f()"
at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Colour(enum.Enum):
    RED = (255, 0, 0)
    NAMELESS = "no.name"


class Mood(enum.StrEnum):
    GOOD = "good"


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any = 0


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - users have them


class Address(BaseModel):
    street: str = Field(alias="Street")
    tags: frozenset[str] = frozenset()
    model_config = ConfigDict(frozen=True, validate_by_name=True)


class Order(BaseModel):
    id: UUID
    at: datetime
    price: Decimal
    ratio: float
    big: int
    payload: bytes
    to: Address | None
    extra: dict[str, Any] = {}
    mood: Mood = Mood.GOOD


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", val_json_bytes="base64", ser_json_bytes="base64")
    at: datetime
    data: bytes
    pair: tuple[int, str]


class Numbers(RootModel[list[int]]):
    pass


class Box(BaseModel, Generic[T]):
    item: T


class IntBox(Box[int]):
    pass


class Holder(BaseModel):
    anything: Any


class Floats(BaseModel):
    one: float | None
    many: list[float]


class Veto(BaseModel):
    allowed: bool

    @field_validator("allowed")
    @classmethod
    def _refuse(cls, value: bool) -> bool:
        if not value:
            message = "not allowed"
            raise ValueError(message)
        return value


@dataclass
class Plain:
    name: str
    at: date
    children: list[Plain] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    amount: Decimal
    ids: tuple[UUID, ...] = ()


@dataclass
class Derived:
    a: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        self.double = 2 * self.a


@dataclass
class Seeded:
    a: int = 0
    seed: InitVar[int] = 0


class Outer:
    class Inner(BaseModel):
        a: int = 1


class Money(int):
    pass


class Shout(str):
    __slots__ = ()


class Nowhere(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return None

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str | None:
        return None


def same(one: Any, other: Any) -> bool:
    """Equal, of the same type, all the way down; NaN is itself and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, Decimal):
        return str(one) == str(other)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) for pairs in zip(one.items(), other.items(), strict=True) for a, b in zip(*pairs, strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, (datetime, time)):
        return one.isoformat() == other.isoformat() and one.fold == other.fold and _zone(one) == _zone(other)
    return bool(one == other)


def _zone(moment: datetime | time) -> str | None:
    return getattr(moment.tzinfo, "key", None)


def round_trip(value: Any) -> Any:
    """Through text, as a table keeps it; the text is strict JSON."""
    text = dumps(value, WHAT)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(text, parse_constant=refuse, parse_int=str)
    return loads(text.encode() if len(text) % 2 else text)


# -- what comes back

words = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6)
zones = st.none() | st.just(UTC) | st.sampled_from(["Europe/Berlin", "Asia/Kathmandu", "UTC"]).map(ZoneInfo)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
datetimes = st.datetimes(timezones=zones | offsets, allow_imaginary=True)
folded = st.builds(lambda moment, fold: moment.replace(fold=fold), datetimes, st.integers(0, 1))
hashables = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3).map(lambda number: number * 16**3600)  # more digits than Python and JSON readers take
    | st.floats(allow_nan=False)
    | st.sampled_from([0.0, -0.0, 1.0, 1e22, 5e-324, math.inf, -math.inf])
    | words
    | st.binary(max_size=8)
    | folded
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.sampled_from([*Colour, *Mood, *Level, *Right, Right.READ | Right.WRITE, Right(0)])
    | st.sampled_from([Path(), Path("/a/b c"), PurePosixPath("../x"), PureWindowsPath("c:/x")])
    | st.builds(Frozen, amount=st.decimals(allow_nan=False, allow_infinity=False), ids=st.tuples(st.uuids()))
    | st.builds(Address, Street=words, tags=st.frozensets(words, max_size=2))
)
frozen = st.recursive(
    hashables,
    lambda inner: (
        st.tuples(inner, inner)
        | st.frozensets(inner, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=4,
)
any_json = words | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
orders = st.builds(
    Order,
    id=st.uuids(),
    at=st.datetimes(timezones=st.just(UTC)),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    ratio=st.floats(allow_nan=False),
    big=st.integers(),
    payload=words.map(str.encode),
    to=st.none() | st.builds(Address, Street=words),
    extra=st.dictionaries(st.sampled_from(["$", "a"]), any_json, max_size=2),
)
leaves = (
    frozen
    | orders
    | st.just(math.nan)
    | st.just(Decimal("nan"))
    | st.builds(Plain, words, st.dates(), st.lists(st.builds(Plain, words, st.dates()), max_size=2))
    | st.builds(Strict, at=st.datetimes(timezones=st.just(UTC)), data=st.binary(), pair=st.just((1, "a")), more=words)
    | st.builds(Numbers, st.lists(st.integers()))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.just("$"), inner, max_size=3)
        | st.dictionaries(frozen, inner, max_size=2)
        | st.tuples(inner, inner)
        | st.builds(Point, inner, inner)
        | st.sets(frozen, max_size=3)
    ),
    max_leaves=8,
)


@at_any_speed
@given(values)
def test_every_value_comes_back_with_its_type(value: Any) -> None:
    assert same(round_trip(value), value)


@at_any_speed
@given(values)
def test_a_value_of_the_codec_is_written_the_same_again(value: Any) -> None:
    assert dumps(round_trip(value), WHAT) == dumps(value, WHAT)


@pytest.mark.parametrize(
    "value",
    [
        IntBox(item=3),
        Box(item=3),
        Outer.Inner(),
        Derived(2),
        Seeded(a=3),
        Holder(anything={"$": "record", "t": "No", "v": [1]}),
        Holder(anything=[1e22, 10**400]),
        Floats(one=math.inf, many=[-math.inf]),
        {"$": "tuple", "v": [1]},
        {1: "a", "1": "b", Mood.GOOD: "c", None: "d", (1,): {}},
        datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        time(2, 30, 0, 1, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        -(16**3500),
        16**3499,
        2**14_000 - 1,
        2**14_000,
        [True, 1, 1.0, "1"],
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_a_particular_value_comes_back_with_its_type(value: Any) -> None:
    assert same(round_trip(value), value)


def test_plain_json_stays_as_it_is() -> None:
    value = {"a": [1, 2.0, None, True, "é\u2028"], "b": {}}
    assert encode(value, WHAT) == value
    assert dumps(value, WHAT) == '{"a":[1,2.0,null,true,"é\u2028"],"b":{}}'


def test_the_stored_form_is_readable() -> None:
    moment = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert encode(moment, WHAT) == {"$": "datetime", "v": "2024-07-01T12:00:00+02:00", "zone": "Europe/Berlin"}
    assert encode(Mood.GOOD, WHAT) == {"$": "enum", "t": f"{__name__}:Mood", "v": "GOOD"}
    assert encode(Outer.Inner(), WHAT) == {"$": "model", "t": f"{__name__}:Outer.Inner", "v": {"a": 1}}
    assert encode(Address(Street="s"), WHAT) == {
        "$": "model",
        "t": f"{__name__}:Address",
        "v": {"street": "s", "tags": []},
    }


def test_equal_sets_are_equal_json() -> None:
    assert dumps({"b", "a", "c"}, WHAT) == '{"$":"set","v":["a","b","c"]}'


def test_a_value_nested_as_deeply_as_allowed_comes_back() -> None:
    value: Any = 1
    for _ in range(190):
        value = [value]
    assert same(round_trip(value), value)
    nested: Any = UUID(int=1)
    for _ in range(95):
        nested = (nested,)
    assert same(round_trip(nested), nested)


# -- what is refused


def _nested(wrap: Callable[[Any], Any], times: int) -> Any:
    value: Any = 1
    for _ in range(times):
        value = wrap(value)
    return value


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _local() -> Any:
    class Local(BaseModel):
        pass

    return Local()


def _local_enum() -> Any:
    return enum.Enum("Local", "A", qualname="_local_enum.<locals>.Local").A  # type: ignore[attr-defined]


def _derived_otherwise() -> Derived:
    value = Derived(2)
    value.double = 7
    return value


REFUSED: dict[str, tuple[Any, str]] = {
    "lock": (threading.Lock(), "argument 'x' of f() is a lock, which JSON cannot hold. Pass an id, plain data or a"),
    "nested": ([0, 1, 2, {"a": socket.socket}], "argument 'x' of f(): item 3, key 'a' is a type, which JSON"),
    "function": ((len,), "item 0 is a builtin_function_or_method, which"),
    "generator": ({"a": (i for i in ())}, "key 'a' is a generator"),
    "bytearray": (bytearray(b"a"), "is a bytearray"),
    "complex": (1j, "is a complex"),
    "int subclass": (Money(3), "is a Money, a subclass of int that would come back as one"),
    "str subclass": ([Shout("a")], "item 0 is a Shout, a subclass of str"),
    "dict subclass": (OrderedDict(a=1), "is a OrderedDict, a subclass of dict"),
    "counter": (Counter("a"), "is a Counter, a subclass of dict"),
    "key": ({object: 1}, "key <class 'object'> is a type"),
    "element": ({len}, "element <built-in function len> is a builtin_function"),
    "field": (Point(1, len), "field 'y' is a builtin_function"),
    "nul": (["a\x00b"], "item 0 holds a NUL character or half a surrogate pair, which Postgres cannot store. Remove"),
    "surrogate": ({"a": "\ud800"}, "key 'a' holds a NUL"),
    "nul key": ({"\x00": 1}, "holds a NUL"),
    "path": (PurePath("a\x00"), "holds a NUL"),
    "model nul": (Holder(anything={"b": "\x00"}), "key 'anything', key 'b' holds a NUL"),
    "model object": (Holder(anything=object()), "is a Holder that Pydantic cannot write as JSON"),
    "model type": (Veto.model_construct(allowed="perhaps"), "is a Veto that Pydantic cannot write as JSON"),
    "model bytes": (Holder(anything=b"\xff"), "is a Holder that Pydantic cannot write as JSON"),
    "model secret": ([Holder(anything=[SecretStr("a")])], "item 0 is a Holder that holds a secret"),
    "model extra": (Strict(at=datetime.now(UTC), data=b"", pair=(1, ""), more=SecretStr("a")), "holds a secret"),
    "model infinity": (Holder(anything=[math.inf]), "holds nan or infinity where its class declares no float"),
    "model cycle": (Holder(anything=_cycle()), "is a Holder that Pydantic cannot write"),
    "dataclass type": (Plain("a", "yesterday"), "is a Plain that Pydantic cannot write"),  # type: ignore[arg-type]
    "dataclass derived": (_derived_otherwise(), "whose constructor does not make it again from its fields"),
    "cycle": (_cycle(), "nested deeper than 190 levels of JSON, or contains itself"),
    "deep": (_nested(lambda value: {"a": value}, 191), "nested deeper"),
    "deep tuples": (_nested(lambda value: (value,), 96), "nested deeper"),
    "deep model": ([_nested(lambda value: [Holder(anything=value)], 100)], "nested deeper"),
    "very deep": (_nested(lambda value: [value], 100_000), "nested deeper"),
    "local": ([_local()], "item 0 is a Local, which is defined inside a function, where no other process finds it"),
    "local enum": (_local_enum(), "is a Local, which is defined inside a function"),
    "generic": (Box[int](item=1), r"is a Box\[int\], a parametrised generic, .* class Named\(Box\[int\]\)"),
    "unnamed": (create_model("Unnamed", a=(int, 1))(), r"is a Unnamed, but \S+:Unnamed is not that class"),
    "made": (make_dataclass("Made", ["a"])(1), "is a Made, but"),
    "zone": (datetime(2024, 1, 1, tzinfo=Nowhere()), "has a time zone without an offset"),
    "class": (Address, "is a ModelMetaclass"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_json_cannot_hold_is_refused_by_place(value: Any, message: str) -> None:
    with pytest.raises(NotSerialisable, match=message if "\\" in message else None) as caught:
        encode(value, WHAT)
    assert str(caught.value).startswith(WHAT)
    assert "\\" in message or message in str(caught.value)


BAD: dict[str, tuple[Any, type[EventicError], str]] = {
    "unknown kind": ({"$": "spaceship", "v": 1}, NotSerialisable, "'spaceship' is no kind of stored value"),
    "no kind": ({"$": [1]}, NotSerialisable, "is no kind"),
    "no value": ({"$": "tuple"}, NotSerialisable, "A stored tuple cannot be read"),
    "no type": ({"$": "model", "v": {}}, NotSerialisable, "A stored model cannot be read"),
    "no text": ({"$": "error", "t": "a:b"}, NotSerialisable, "A stored error cannot be read"),
    "type is no text": ({"$": "enum", "t": 3, "v": "A"}, NotSerialisable, "A stored enum"),
    "decimal": ({"$": "decimal", "v": "zero"}, NotSerialisable, "A stored decimal"),
    "bytes": ({"$": "bytes", "v": "é"}, NotSerialisable, "A stored bytes"),
    "zone": ({"$": "datetime", "v": "2024-01-01T00:00:00", "zone": "No/Where"}, NotSerialisable, "A stored datetime"),
    "folder": ({"$": "datetime", "v": "2024-01-01T00:00:00", "zone": "Europe"}, NotSerialisable, "A stored datetime"),
    "unhashable": ({"$": "set", "v": [[1]]}, NotSerialisable, "A stored set"),
    "timedelta": ({"$": "timedelta", "v": [10**99, 0, 0]}, NotSerialisable, "A stored timedelta"),
    "uuid in a list": ([{"$": "uuid", "v": "x"}], NotSerialisable, "A stored uuid"),
    "member": ({"$": "enum", "t": f"{__name__}:Mood", "v": "BAD"}, NotSerialisable, "A stored enum"),
    "field": ({"$": "namedtuple", "t": f"{__name__}:Point", "v": {"x": 1, "z": 2}}, NotSerialisable, "no field z"),
    "model": ({"$": "model", "t": f"{__name__}:Veto", "v": {"allowed": False}}, NotSerialisable, "not allowed"),
    "deep": (_nested(lambda value: [value], 100_000), NotSerialisable, "too deeply"),
    "unknown module": ({"$": "model", "t": "nowhere:A", "v": {}}, NotRegistered, "The model 'nowhere:A' is not known"),
    "unknown type": ({"$": "enum", "t": f"{__name__}:No", "v": "A"}, NotRegistered, "Import its module in the worker"),
    "no colon": ({"$": "enum", "t": "Mood", "v": "A"}, NotRegistered, "'Mood' is not known"),
    "function": ({"$": "model", "t": "os:system", "v": {}}, NotRegistered, "'os:system' is not known"),
    "wrong kind": ({"$": "model", "t": f"{__name__}:Mood", "v": {}}, NotRegistered, "not of the kind model"),
    "no model": ({"$": "dataclass", "t": f"{__name__}:Address", "v": {}}, NotRegistered, "not of the kind dataclass"),
    "a builtin": ({"$": "namedtuple", "t": "builtins:tuple", "v": {}}, NotRegistered, "not of the kind namedtuple"),
    "a module in one": ({"$": "enum", "t": f"{__name__}:enum.Enum", "v": 1}, NotSerialisable, "A stored enum"),
    "record": ({"$": "record", "t": "Nobody", "v": [str(uuid4()), 0]}, NotRegistered, "No record class is stored as"),
    "no record": ({"$": "record", "t": "", "v": [str(uuid4()), 0]}, NotRegistered, "is stored as ''"),
    "record version": ({"$": "record", "t": "CodecStory", "v": ["x", 0]}, NotSerialisable, "A stored record"),
}


@pytest.mark.parametrize(("value", "kind", "message"), BAD.values(), ids=BAD.keys())
def test_what_no_encoder_wrote_is_refused(value: Any, kind: type[EventicError], message: str) -> None:
    with pytest.raises(kind) as caught:
        decode(value)
    assert type(caught.value) is kind
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 300 + "]" * 300, b"\xff"])
def test_text_that_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(NotSerialisable, match="is not JSON"):
        loads(text)


def test_a_named_tuple_that_got_a_default_since_is_read() -> None:
    assert decode({"$": "namedtuple", "t": f"{__name__}:Point", "v": {"x": 1}}) == Point(1, 0)


# -- errors


class Odd(Exception):
    def __init__(self, order: int, *, why: str, handle: Any = None) -> None:
        super().__init__(f"order {order}: {why}")
        self.order = order
        self.why = why
        self.handle = handle


class Slotted(ValueError):
    __slots__ = ("limit",)

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit


class Unprintable(Exception):
    def __str__(self) -> str:
        return str(self.handle)  # type: ignore[attr-defined]

    __repr__ = __str__


class Loud(Exception):
    def __init__(self) -> None:
        message = "__init__ was called"
        raise AssertionError(message)


class Fixed(LookupError):
    def __init__(self, *args: Any) -> None:
        super().__init__("always this")


@dataclass(frozen=True)
class Data(Exception):
    code: int


class Coded(EventicError, OSError):
    """Two bases that keep their own things."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code_number = code


def _with_traceback_of(cause: BaseException) -> BaseException:
    try:
        raise RuntimeError("outer", {1, 2}) from cause
    except RuntimeError as error:
        return error


def _raised(call: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
        call()
    return caught.value


ERRORS: dict[str, Exception] = {
    "plain": ValueError("a", 1, (2, Decimal(3))),
    "nothing": Exception(),
    "key": KeyError("a"),
    "init": Odd(3, why="late"),
    "slots": Slotted(Decimal("1.50")),
    "fixed": Fixed(1, 2),
    "dataclass": Data(3),
    "os": FileNotFoundError(2, "No such file", "/a", None, "/b"),
    "unicode": _raised(lambda: b"\xff".decode()),
    "encode": _raised(lambda: "\xff".encode("ascii")),
    "syntax": _raised(lambda: compile("a b", "x.py", "exec")),
    "attribute": _raised(lambda: object().x),  # type: ignore[attr-defined]
    "import": ImportError("no", name="a.b", path="/x"),
    "stop": StopIteration(3),
    "timeout": TimeoutError(),
    "json": _raised(lambda: json.loads("{")),
    "group": ExceptionGroup("two", [ValueError(1), Odd(1, why="x")]),
    "conflict": VersionConflict("Todo", uuid4(), expected=3, actual=5, changed=[(4, "ann", None, ("text",))]),
    "invalid": eventic_errors.InvalidRecord("No.", errors=[{"loc": ("a", 0), "msg": "m", "type": "t"}]),
    "migration": eventic_errors.MigrationRequired(found=None, needed="1", database="db"),
    "result timeout": eventic_errors.ResultTimeout("late"),
    "not found": eventic_errors.RecordNotFound("no"),
    "remote": RemoteError("gone", "a:B"),
    "coded": Coded("m", 7),
}
STATE = ("errno", "strerror", "filename", "filename2", "name", "path", "value", "limit", "lineno", "offset", "text")
STATE += ("encoding", "start", "end", "reason", "object", "msg")


def through(error: BaseException) -> Exception:
    return decode_error(json.loads(json.dumps(encode_error(error))))


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_comes_back_as_its_class_with_all_it_had(error: Exception) -> None:
    back = through(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    if isinstance(error, ExceptionGroup):
        assert [(type(e), e.args, vars(e)) for e in back.exceptions] == [  # type: ignore[attr-defined]
            (type(e), e.args, vars(e)) for e in error.exceptions
        ]
        return
    assert same(back.args, error.args)
    assert same(vars(back), vars(error))
    assert [getattr(back, name, None) for name in STATE] == [getattr(error, name, None) for name in STATE]


def test_every_error_of_the_package_comes_back() -> None:
    for name in ("NotFound", "Conflict", "NotAllowed", "StoreUnavailable", "RecordDeleted", "Nondeterminism"):
        error = getattr(eventic_errors, name)("what - which - what to do")
        back = through(error)
        assert (type(back), back.args, vars(back)) == (type(error), error.args, vars(error))


def test_an_error_is_a_value_like_others() -> None:
    back = round_trip([Odd(1, why="a"), {"e": KeyError("b")}])
    assert (type(back[0]), back[0].why, repr(back[1]["e"])) == (Odd, "a", "KeyError('b')")


def test_init_of_an_error_is_not_called() -> None:
    assert type(through(Loud.__new__(Loud, 1))) is Loud


def test_what_json_cannot_hold_of_an_error_is_dropped_or_shown() -> None:
    lock = threading.Lock()
    error = Odd(3, why="nul \x00, half \ud800", handle=lock)
    error.args = (*error.args, lock, [_cycle(), 1])
    back = through(error)
    assert isinstance(back, Odd)
    assert (back.order, back.why) == (3, r"nul \x00, half \ud800")
    assert not hasattr(back, "handle")
    assert back.args == (r"order 3: nul \x00, half \ud800", repr(lock), "[[[...]], 1]")
    dumps(error, WHAT)


def test_notes_and_causes_come_along() -> None:
    inner = KeyError("inner")
    inner.add_note("first")
    inner.add_note("second")
    outer = _with_traceback_of(_with_traceback_of(inner))
    back = through(outer)
    assert back.args == ("outer", {1, 2})
    assert isinstance(back.__cause__, RuntimeError)
    innermost = back.__cause__.__cause__
    assert repr(innermost) == "KeyError('inner')"
    assert innermost.__notes__ == ["first", "second"]  # type: ignore[union-attr]
    assert innermost.__cause__ is None  # type: ignore[union-attr]


def test_an_error_that_holds_itself_ends() -> None:
    one, other = Odd(1, why="a"), Odd(2, why="b")
    one.handle, other.handle = other, [one]
    one.__cause__, other.__cause__ = other, one
    back = through(one)
    assert isinstance(back, Odd)
    assert isinstance(back.handle, Odd)
    assert back.handle.order == 2
    assert not hasattr(back.handle, "handle")
    chain: BaseException = ValueError("end")
    for number in range(500):
        link = ValueError(number)
        link.__cause__ = chain
        chain = link
    assert through(chain).args == (499,)


def _local_error() -> Exception:
    class LocalError(Exception):
        pass

    return LocalError("here")


@pytest.mark.parametrize(
    ("error", "text", "type_name"),
    [
        (_local_error(), "here", f"{__name__}:_local_error.<locals>.LocalError"),
        (KeyboardInterrupt("stop"), "stop", "builtins:KeyboardInterrupt"),
        (SystemExit(3), "3", "builtins:SystemExit"),
        (asyncio.CancelledError("by"), "by", "asyncio.exceptions:CancelledError"),
        (_raised(lambda: Veto(allowed=False)), "1 validation error for Veto", "pydantic_core._pydantic_core:"),
        (Unprintable(), "", f"{__name__}:Unprintable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_that_cannot_be_rebuilt_is_a_remote_one(error: BaseException, text: str, type_name: str) -> None:
    back = through(error)
    assert type(back) is RemoteError
    assert back.message.startswith(text)
    assert back.type_name.startswith(type_name)


@pytest.mark.parametrize("inner", [KeyboardInterrupt("stop"), _local_error()], ids=["interrupt", "local"])
def test_a_group_keeps_what_can_be_rebuilt(inner: BaseException) -> None:
    back = through(BaseExceptionGroup("two", [ValueError(1), inner]))
    assert isinstance(back, ExceptionGroup)
    assert [type(error) for error in back.exceptions] == [ValueError, RemoteError]


def test_an_error_of_an_unknown_class_keeps_its_text_notes_and_cause() -> None:
    value = encode_error(_with_traceback_of(KeyError("inner")))
    assert isinstance(value, dict)
    back = decode_error({**value, "t": "their.module:TheirError"})
    assert type(back) is RemoteError
    assert (back.message, back.type_name) == (value["m"], "their.module:TheirError")
    assert repr(back.__cause__) == "KeyError('inner')"


@pytest.mark.parametrize("value", [1, None, [], {}, "error", {"$": "tuple", "v": []}])
def test_what_is_no_error_is_refused(value: Any) -> None:
    with pytest.raises(NotSerialisable, match="is no stored error"):
        decode_error(value)


class Hostile(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError


def test_encoding_an_error_never_raises() -> None:
    assert encode_error(Hostile()) == {
        "$": "error",
        "t": f"{__name__}:Hostile",
        "m": "",
        "v": {"args": [""], "state": {}},
    }
    assert type(through(Hostile())) is RemoteError


# -- names of types


SCRIPT = """
import enum, sys
from eventic_core.runtime.codec import dumps, loads

class Mood(enum.Enum):
    GOOD = 1

class Odd(Exception):
    pass

if __name__ == "__main__":
    text = dumps([Mood.GOOD, Odd("a")], "x") if len(sys.argv) == 1 else sys.argv[1]
    assert loads(text)[0] is Mood.GOOD
    assert type(loads(text)[1]) is Odd
    print(text)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "codec_script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop("codec_script", None)


def run(*arguments: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.strip()


def test_a_type_of_a_script_has_the_name_it_has_when_imported(script: Path) -> None:
    as_file = run(str(script), folder=script.parent)
    assert as_file == run("-m", "codec_script", folder=script.parent)
    assert '"t":"codec_script:Mood"' in as_file
    with pytest.raises(NotRegistered, match=r"'codec_script:Mood' is not known in this process\. Import its module"):
        loads(as_file)
    import codec_script  # type: ignore[import-not-found]

    assert loads(as_file)[0] is codec_script.Mood.GOOD
    imported = dumps([codec_script.Mood.GOOD, codec_script.Odd("a")], WHAT)
    assert imported == as_file
    assert run(str(script), imported, folder=script.parent) == imported


SETS = """
from dataclasses import dataclass
from typing import Any
from pydantic import BaseModel, Field, RootModel
from eventic_core.runtime.codec import dumps, loads

WORDS = ["", "a", "\u00e5", "zz", "b\\x04", "long word", "q"]

class Leaf(BaseModel, frozen=True):
    words: frozenset[str] = Field(alias="Words")

class Bag(RootModel[set[str]]):
    pass

@dataclass
class Box:
    pairs: dict[str, tuple[frozenset[str], ...]]

class Tree(BaseModel, extra="allow"):
    leaves: set[Leaf]
    nested: frozenset[frozenset[str]]
    bag: Bag
    box: Box
    anything: Any
    ordered: list[str]

def leaf(words):
    return Leaf(Words=frozenset(words))

tree = Tree(
    leaves={leaf(WORDS), leaf(WORDS[2:]), leaf([])},
    nested=frozenset({frozenset(WORDS), frozenset(WORDS[3:]), frozenset()}),
    bag=Bag(set(WORDS)),
    box=Box({"b": (frozenset(WORDS), frozenset()), "a": ()}),
    anything={"x": [set(WORDS)]},
    ordered=WORDS[::-1],
    more=set(WORDS),
)
text = dumps(tree, "x")
back = loads(text)
assert (back.leaves, back.nested, back.bag, back.box, back.ordered) == (
    tree.leaves, tree.nested, tree.bag, tree.box, tree.ordered
)
assert dumps(back, "x") == text
print(text.encode())
"""


def test_sets_within_models_are_the_same_text_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "codec_sets.py").write_text(SETS, encoding="utf-8")
    texts = set()
    for seed in ("1", "2", "3"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        texts.add(run("-m", "codec_sets", folder=tmp_path))
    assert len(texts) == 1


def test_a_type_of_a_session_without_a_file_comes_back_in_it_only(tmp_path: Path) -> None:
    code = SCRIPT.replace('__name__ == "__main__"', "True")
    text = run("-c", code, folder=tmp_path)
    assert '"t":"__main__:Mood"' in text
    with pytest.raises(NotRegistered, match="'__main__:Mood' is not known"):
        loads(text)


def test_decoding_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "codec_trap"
    folder.mkdir()
    for name in ("__init__", "inner"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("codec_trap:A", "codec_trap.inner:A", "codec_trap:inner.A"):
        for tag in ("model", "enum", "dataclass", "namedtuple"):
            with pytest.raises(NotRegistered):
                decode({"$": tag, "t": name, "v": {}})
        back = decode_error({"$": "error", "t": name, "m": "m", "v": {"args": [], "state": {}}})
        assert type(back) is RemoteError
    assert not [name for name in sys.modules if name.startswith("codec_trap")]


def test_finding_a_type_runs_no_getattr_of_a_module() -> None:
    code = """
import sys, eventic_core
from eventic_core.errors import NotRegistered
from eventic_core.runtime.codec import decode
vars(eventic_core).pop("Eventic", None)
eventic_core.__getattr__ = lambda name: sys.exit("asked")
try:
    decode({"$": "model", "t": "eventic_core:Eventic", "v": {}})
except NotRegistered:
    print("not known")
"""
    assert run("-c", code, folder=Path.cwd()) == "not known"


def test_the_codec_does_not_import_dbos() -> None:
    code = "import sys, eventic_core.runtime.codec; print('dbos' in sys.modules)"
    assert run("-c", code, folder=Path.cwd()) == "False"


# -- records


class CodecStory(Record):
    title: str
    tags: list[str] = []
    marks: set[int] = set()


class CodecSaga(CodecStory):
    parts: int = 1


class CodecBox(Record, Generic[T]):
    item: T


def test_a_record_goes_by_reference_to_its_version(eventic: str) -> None:
    story = CodecStory(title="One")
    first = CodecStory.hydrate(story.id)
    text = dumps(first, WHAT)
    assert json.loads(text) == {"$": "record", "t": "CodecStory", "v": [str(story.id), 0]}
    story.title = "Two"
    back = loads(text)
    assert (type(back), back.id, back.version, back.title) == (CodecStory, story.id, 0, "One")
    assert back.is_stored
    assert round_trip(story) == story
    assert round_trip(story).version == 1


def test_records_go_inside_other_values(eventic: str) -> None:
    saga = CodecSaga(title="Saga", parts=3)
    value = {"a": [saga], "b": (saga, Point(saga, 1)), 3: saga}
    back = round_trip(value)
    found = [back["a"][0], back["b"][0], back["b"][1].x, back[3]]
    assert [(type(item), item.version, item.parts) for item in found] == [(CodecSaga, 0, 3)] * 4


def test_values_of_a_record_come_back_as_plain_ones(eventic: str) -> None:
    story = CodecStory(title="One", tags=["a"], marks={2, 1}, properties={"k": {"l": [1]}})
    back = round_trip([story.tags, story.marks, story.properties])
    assert same(back, [["a"], {1, 2}, {"k": {"l": [1]}}])


def test_a_deleted_record_comes_back(eventic: str) -> None:
    story = CodecStory(title="One")
    story.delete()
    back = round_trip(story)
    assert (back.deleted, back.version, back.title) == (True, 1, "One")


def test_a_record_whose_latest_state_is_not_stored_is_refused(eventic: str) -> None:
    draft = CodecStory.model_validate({"title": "One"})
    with pytest.raises(NotSerialisable, match=r"item 0 is a draft of CodecStory, .*\. save\(\) it first\."):
        encode([draft], WHAT)
    story = CodecStory(title="One")
    with story.edit():
        encode(story, WHAT)
        story.tags.append("a")
        with pytest.raises(NotSerialisable, match=r"is a CodecStory with changes that are not stored"):
            encode(story, WHAT)
    assert round_trip(story).tags == ["a"]
    with Eventic.unit_of_work():
        born = CodecStory(title="Two")
        with pytest.raises(NotSerialisable, match="is a draft"):
            encode(born, WHAT)


def test_a_record_inside_a_model_is_refused(eventic: str) -> None:
    with pytest.raises(
        NotSerialisable, match=r"is a Holder that holds the record CodecStory, .*: hold a Ref or its id"
    ):
        encode(Holder(anything={"a": [CodecStory(title="One")]}), WHAT)


def test_a_parametrised_record_is_refused(eventic: str) -> None:
    with pytest.raises(NotSerialisable, match=r"is a CodecBox\[int\], a parametrised generic"):
        encode(CodecBox[int](item=1), WHAT)


def test_a_record_that_is_not_stored_any_more_is_not_found(eventic: str) -> None:
    story = CodecStory(title="One")
    for reference in ([str(story.id), 1], [str(uuid4()), 0]):
        with pytest.raises(RecordNotFound, match="No CodecStory"):
            decode({"$": "record", "t": "CodecStory", "v": reference})
    with pytest.raises(RecordNotFound, match="No CodecSaga"):
        decode({"$": "record", "t": "CodecSaga", "v": [str(story.id), 0]})


def test_a_record_in_an_error_comes_back(eventic: str) -> None:
    story = CodecStory(title="One")
    back = through(Odd(1, why="a", handle=story))
    assert isinstance(back, Odd)
    assert back.handle == story


def test_reading_a_record_without_a_database_says_so() -> None:
    Eventic.shutdown()
    with pytest.raises(NotInitialised):
        decode({"$": "record", "t": "CodecStory", "v": [str(uuid4()), 0]})


def test_every_kind_of_the_table_is_documented_by_a_test() -> None:
    assert set(codec._READERS) == {
        *("bytes", "date", "dataclass", "datetime", "decimal", "dict", "enum", "error", "float", "frozenset", "int"),
        *("model", "namedtuple", "path", "pure_posix_path", "pure_windows_path", "record", "set", "time"),
        *("timedelta", "tuple", "uuid"),
    }
