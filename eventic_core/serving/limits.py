"""How much of a request is read: bytes of its body and depth of its JSON, counted while it comes in.

Owns the middleware of `Eventic.create_app` and what the package's routes do in any other app.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from eventic_core.runtime.process import process
from eventic_core.serving.problems import Refusal, response_to
from eventic_core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_JSON_DEPTH: Final = 64
"""Lists and objects within each other: far below what Python's own recursion bears, far above what people send."""
MAX_HEADER_BYTES: Final = 8192
_LIMITED: Final = "eventic.limited"
_OUTSIDE: Final = re.compile(rb'["\[\]{}]')
_INSIDE: Final = re.compile(rb'["\\]')


def settings_in_use() -> Settings:
    """Give the settings of the process; before it is connected, those of its environment."""
    return process().settings if process().is_connected else Settings()


class RequestLimits:
    """ASGI middleware: no route of the app reads more than `max_body_bytes`, nor JSON that is too deep."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; what says beforehand that it is too large is answered without reading it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            limited = limit(scope, receive)
        except Refusal as refusal:
            await response_to(refusal)(scope, receive, send)
            return
        await self._app(scope, limited, send)


def limit(scope: Scope, receive: Receive) -> Receive:
    """Give a `receive` that counts; once for each request.

    Raises:
        Refusal: Its headers say already that it is too large.
    """
    if scope.get(_LIMITED):
        return receive
    headers = {name.lower(): value for name, value in scope["headers"]}
    most = settings_in_use().max_body_bytes
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > most:
        raise _too_large(most)
    scope[_LIMITED] = True
    kind = headers.get(b"content-type", b"json").lower()
    return _Counted(receive, most, JsonDepth() if b"json" in kind else None)


def _too_large(most: int) -> Refusal:
    return Refusal(413, "body_too_large", f"The body has more than {most} bytes, the limit of this server.")


class _Counted:
    def __init__(self, receive: Receive, most: int, depth: JsonDepth | None) -> None:
        self._receive, self._most, self._depth = receive, most, depth
        self._count = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        body = message.get("body", b"") if message["type"] == "http.request" else b""
        self._count += len(body)
        if self._count > self._most:
            raise _too_large(self._most)
        if self._depth is not None:
            self._depth.feed(body)
        return message


class JsonDepth:
    """Follows JSON that comes in pieces, and refuses it where it is too deep."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._is_escaped = False

    def feed(self, body: bytes) -> None:
        """Follow one piece.

        Raises:
            Refusal: Lists and objects are deeper in each other than `MAX_JSON_DEPTH`.
        """
        at = 0
        while at < len(body):
            if self._is_escaped:
                self._is_escaped = False
                at += 1
                continue
            found = (_INSIDE if self._in_text else _OUTSIDE).search(body, at)
            if found is None:
                return
            at = found.end()
            match found[0]:
                case b'"':
                    self._in_text = not self._in_text
                case b"\\":
                    self._is_escaped = True
                case b"[" | b"{":
                    self._deepen()
                case _:
                    self._depth -= 1

    def _deepen(self) -> None:
        self._depth += 1
        if self._depth > MAX_JSON_DEPTH:
            detail = f"The JSON of the body is deeper than {MAX_JSON_DEPTH} lists and objects in each other."
            raise Refusal(400, "json_too_deep", detail)
