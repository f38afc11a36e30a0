"""What stands where values stood: documents and payloads without what was erased. Functions of values, no database."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from eventic_core.errors import EventicError, Invalid
from eventic_core.records import state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from eventic_core.records import Record
    from eventic_core.records.port import StoredVersion

ERASED: Final = "[erased]"
_SHORT: Final = 4
"""A text below this length is replaced where it is all there is, not inside of longer ones."""
_STANDINS: Final[tuple[Any, ...]] = (
    None,
    ERASED,
    "",
    0,
    False,
    [],
    {},
    "1970-01-01T00:00:00Z",
    "1970-01-01",
    "00:00:00",
    "00000000-0000-0000-0000-000000000000",
    "erased@erased.invalid",
    1,
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Redaction:
    """What is erased from payloads: texts, and the values that stand under some names beside the record's id."""

    def __init__(self, record_id: UUID, names: Sequence[str], own: Sequence[str], everywhere: Sequence[str]) -> None:
        self._id, self._names = str(record_id), frozenset(names)
        self._own = sorted({*own, *everywhere}, key=len, reverse=True)
        self._everywhere = sorted(set(everywhere), key=len, reverse=True)

    def apply(self, text: str, *, is_own: bool) -> str | None:
        """Give a payload without what is erased; `None` if nothing of it is there.

        Args:
            text: JSON, or plain text.
            is_own: Whether it is of a run that had the record, so that texts of its fields go too.
        """
        texts = self._own if is_own or self._id in text else self._everywhere
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            changed: Any = _replaced(text, texts)
            return None if changed == text else changed
        changed = self._without(value, texts)
        return None if changed == value else json.dumps(changed, ensure_ascii=False)

    def _without(self, value: Any, texts: Sequence[str]) -> Any:
        match value:
            case str():
                return _replaced(value, texts)
            case list():
                return [self._without(one, texts) for one in value]
            case dict():
                is_it = self._id in [one for one in value.values() if isinstance(one, str)]
                return {
                    _replaced(name, texts): None if is_it and name in self._names else self._without(one, texts)
                    for name, one in value.items()
                }
        return value


def needles(texts: Sequence[str]) -> list[str]:
    """Give texts in each form they may have in JSON text."""
    forms = {form for text in texts for form in _forms(text)}
    return sorted(forms | {json.dumps(form)[1:-1] for form in forms})  # JSON in JSON


def _forms(text: str) -> tuple[str, str, str]:
    return text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]


def _replaced(text: str, texts: Sequence[str]) -> str:
    for erased in texts:
        if text == erased:
            return ERASED
        if len(erased) >= _SHORT:
            for form in _forms(erased):
                text = text.replace(form, ERASED)
    return text


def paths_of_all(cls: type[Record], document: Mapping[str, Any]) -> list[str]:
    """List the fields of a document but ids and the state."""
    states = cls.__eventic__.states
    kept = {None if states is None else states.field}
    return [
        name
        for name, value in document.items()
        if name not in kept and not (isinstance(value, str) and _UUID.fullmatch(value))
    ]


def texts_in(value: Any) -> Iterator[str]:
    """Give the texts in a value that say something."""
    match value:
        case str() if value.strip() and value != ERASED and not _UUID.fullmatch(value):
            yield value
        case list():
            for one in value:
                yield from texts_in(one)
        case dict():
            for one in value.values():
                yield from texts_in(one)


def erased_document(
    cls: type[Record], row: StoredVersion, paths: Sequence[str], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Put something in place of the values at paths, null where the class allows it; gives the texts that stood there.

    Raises:
        Invalid: The class accepts nothing in place of one.
    """
    document = row.document
    texts: list[str] = []
    if not _fits(cls, row, document):  # of a form that the class cannot read any more: nothing can be said of it
        given = {**dict.fromkeys(paths), **given}
    for path in paths:
        holder, name = _place(document, path)
        if holder is None or name not in holder:
            continue
        before = holder[name]
        for standin in [given[path]] if path in given else _standins(cls, row, path):
            holder[name] = standin
            if path in given or _fits(cls, row, document):
                break
        else:
            message = (
                f"{cls.__name__} accepts no null and nothing simple in place of {path!r}. Say what is to stand there: "
                f"--placeholder {path}=JSON. Nothing was erased."
            )
            raise Invalid(message)
        if before != holder[name]:
            texts += texts_in(before)
    return document, texts


def _standins(cls: type[Record], row: StoredVersion, path: str) -> list[Any]:
    is_unique = any(path in spec.fields for spec in cls.__eventic__.unique)
    own = [f"{ERASED} {row.id}"] if is_unique else []
    field = cls.model_fields.get(path)
    default = [] if field is None or field.is_required() else [field.get_default(call_default_factory=False)]
    simple = [one for one in default if isinstance(one, str | int | float | None)]
    return [None, *own, *_STANDINS[1:], *simple]


def _place(document: Any, path: str) -> tuple[dict[str, Any] | None, str]:
    *way, name = path.split(".")
    for part in way:
        document = document.get(part) if isinstance(document, dict) else None
    return (document if isinstance(document, dict) else None), name


def _fits(cls: type[Record], row: StoredVersion, document: dict[str, Any]) -> bool:
    try:
        state.validated(cls, row._replace(data=json.dumps(document)))
    except EventicError:
        return False
    return True
