"""Who calls a route of the package, and whether they may: asked before anything of the request is read.

Owns the order: authentication, role, limits, then the route, whose acts carry the name of who called. Without any
authentication configured only this machine is answered.
"""

from __future__ import annotations

import inspect
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from eventic_core.errors import EventicError
from eventic_core.operations.access import Principal, Role, Tokens
from eventic_core.records import acting
from eventic_core.serving.limits import MAX_HEADER_BYTES, limit, settings_in_use
from eventic_core.serving.problems import Refusal, response_to

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from fastapi.responses import Response

Authenticate: TypeAlias = Callable[[Request], Principal | Awaitable[Principal | None] | None]
"""Who sent a request; `None` is nobody that is known. Sync or async; it must not block for long."""

AUTHENTICATE: Final = "eventic_authenticate"
"""Where an app's state keeps what `Eventic.create_app` was given."""

_log = logging.getLogger("eventic")
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_SET_UP: Final = "Set EVENTIC_API_TOKENS, or give authenticate= to Eventic.create_app or to the routes."


def guarded(needed: Role, authenticate: Authenticate | None) -> type[APIRoute]:
    """Make the class of routes that need a role.

    Args:
        needed: The role.
        authenticate: As the factory of the routes was given it; else that of the app is asked, else the tokens of the
            setting `api_tokens` are.
    """

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def guard(request: Request) -> Response:
                try:
                    _refuse_long_headers(request)
                    principal = await _admit(request, needed, authenticate)
                    limited = Request(request.scope, limit(request.scope, request.receive))
                    with nullcontext() if principal is None else acting(actor=principal.name):
                        return await answer(limited)
                except (EventicError, HTTPException, RequestValidationError) as error:
                    if isinstance(error, EventicError) and error.http_status >= 500:  # noqa: PLR2004 - HTTP's own
                        _log.warning("a request failed: %s", error.code, extra={"action": "request_failed"})
                    return response_to(error)

            return guard

    return Guarded


async def _admit(request: Request, needed: Role, authenticate: Authenticate | None) -> Principal | None:
    """Find who calls; `None` is this machine, where nothing tells callers apart.

    Raises:
        Refusal: Nobody is known, or may not do this.
    """
    authenticate = authenticate or getattr(request.app.state, AUTHENTICATE, None)
    if authenticate is None:
        secret = settings_in_use().api_tokens
        tokens = Tokens.parse("" if secret is None else secret.get_secret_value())
        if not tokens:
            _refuse_others(request)
            return None
        principal = tokens.find_in_header(request.headers.get("authorization"))
    else:
        found = authenticate(request)
        principal = await found if inspect.isawaitable(found) else found
        if not isinstance(principal, Principal | None):
            message = "authenticate() gave neither a Principal nor None."
            raise TypeError(message)
    if principal is None:
        detail = (
            "Say who you are: this needs a credential that the server knows, such as `Authorization: Bearer TOKEN`."
        )
        raise Refusal(401, "not_authenticated", detail, {"WWW-Authenticate": "Bearer"})
    if not principal.role.allows(needed):
        detail = f"This needs the role {needed}, and {principal.name} has {principal.role}. Ask somebody who has it."
        raise Refusal(403, "role_too_low", detail)
    return principal


def _refuse_long_headers(request: Request) -> None:
    if any(len(value) > MAX_HEADER_BYTES for _, value in request.headers.raw):
        raise Refusal(431, "header_too_long", f"A header has more than {MAX_HEADER_BYTES} bytes.")


def _refuse_others(request: Request) -> None:
    """Refuse what does not surely come from this machine, for everybody may call where nobody is asked who they are.

    A request on a unix socket or through a proxy may come from anywhere, and one that a browser sends on behalf of a
    page of another site does.
    """
    if not is_local(request.scope, request.headers):
        detail = f"Nothing here says who may call, so only this machine is answered, directly. {_SET_UP}"
        raise Refusal(403, "not_protected", detail)


def is_local(scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Tell whether a request came from this machine to a loopback address, for one, and through nobody else."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server or any(name in headers for name in _FORWARDED):
        return False
    origin = headers.get("origin")
    hosts = [str(client[0]), str(server[0]), _host("//" + headers.get("host", ""))]
    return all(map(is_loopback, hosts if origin is None else [*hosts, _host(origin)]))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine's own, as an address or as `localhost`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
