"""The three addresses of a worker, for a supervisor and for metrics: /livez, /readyz and /metrics.

Owns a small server in threads of the worker's process, for this machine only unless there are tokens. The same for apps
that serve HTTP anyway is `serving.health`.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from eventic_core.errors import ConfigurationError
from eventic_core.operations.access import Tokens
from eventic_core.operations.metrics import CONTENT_TYPE, render
from eventic_core.operations.readiness import Report, liveness, readiness

_log = logging.getLogger("eventic")
_REQUEST_SECONDS: Final = 10.0
_MOST_THREADS: Final = 8
_UNKNOWN: Final = 401
_SAY_WHO: Final = "Say who you are: `Authorization: Bearer TOKEN`, with one of the setting api_tokens."


class HealthServer:
    """Serves from `start` to `stop`, or for a `with` block.

    Args:
        port: Where; 0 is any free one.
        host: An address of this machine.
        tokens: Whose bearer token is answered, as of the setting `api_tokens`; without any, everybody who reaches the
            address is.

    Raises:
        ConfigurationError: The host is reachable from elsewhere, and nobody who asks there is asked who they are.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", tokens: str = "") -> None:
        self._tokens = Tokens.parse(tokens)
        if not self._tokens:
            _refuse_open(host)
        self._address = host, port
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> int:
        """Begin; gives the port.

        Raises:
            ConfigurationError: The port is taken, or may not be.
        """
        try:
            self._server = _Server(self._address, _Handler)
            self._server.tokens = self._tokens
        except OSError as error:
            host, port = self._address
            message = f"Health cannot be served on {host} port {port}: {error.strerror}. Choose another --health-port."
            raise ConfigurationError(message) from error
        threading.Thread(target=self._server.serve_forever, name="eventic-health", daemon=True).start()
        port = int(self._server.server_address[1])
        _log.info("health is served on port %s", port, extra={"action": "health", "port": port})
        return port

    def stop(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _refuse_open(host: str) -> None:
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise ConfigurationError(
            f"Health is not served on {host!r}: everybody who reaches that address could read it. Use 127.0.0.1, ::1 "
            "or localhost, or say in EVENTIC_API_TOKENS who may."
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    tokens: Tokens

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            import socket

            self.address_family = socket.AF_INET6
        self._room = threading.BoundedSemaphore(_MOST_THREADS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own, of which there are few; whoever comes when all are busy is turned away."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is the library's
        """Log what went wrong, where the library would print it."""
        _log.debug("a request for health failed", exc_info=True, extra={"action": "health_failed"})


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_SECONDS
    server_version = "eventic"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        asked = urlsplit(self.path)
        if not self._is_known():
            body = json.dumps({"type": "not_authenticated", "status": 401, "detail": _SAY_WHO}) + "\n"
            self._send(_UNKNOWN, "application/problem+json", body)
        elif asked.path == "/livez":
            self._report(liveness())
        elif asked.path == "/readyz":
            self._report(readiness(needs_worker=True))
        elif asked.path == "/metrics":
            system = parse_qs(asked.query).get("system", ["true"])[-1] != "false"
            self._send(200, CONTENT_TYPE, render(system=system))
        else:
            self._send(404, "text/plain; charset=utf-8", "Ask for /livez, /readyz or /metrics.\n")

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self.do_GET()

    def _is_known(self) -> bool:
        """Tell whether who asks may read; every role may."""
        server: Any = self.server
        return not server.tokens or server.tokens.find_in_header(self.headers.get("Authorization")) is not None

    def _report(self, report: Report) -> None:
        self._send(report.http_status, "application/json", json.dumps(report.values()) + "\n")

    def _send(self, status: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == _UNKNOWN:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Leave requests out of the log: there is one every few seconds."""
