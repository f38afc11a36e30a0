"""Hosts whose network can be cut: network namespaces where the machine lets us make them, else a relay that goes deaf.

Postgres is reached over TCP through a relay on this machine, so that its side of a cut connection stays open, as it
does when a cable is pulled.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit, urlunsplit

RELAY = """
import asyncio, signal, sys
address, socket_or_host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
open_ = asyncio.Event()

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            await open_.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    await open_.wait()
    writer.close()

async def serve(reader, writer):
    await open_.wait()
    if socket_or_host.startswith("/"):
        there = await asyncio.open_unix_connection(f"{socket_or_host}/.s.PGSQL.{port}")
    else:
        there = await asyncio.open_connection(socket_or_host, port)
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, open_.clear)
    loop.add_signal_handler(signal.SIGUSR2, open_.set)
    open_.set()
    server = await asyncio.start_server(serve, address, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def can_make_namespaces() -> bool:
    """Tell whether this machine lets us make network namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"evprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made


class Host:
    """A host on a link of its own to the machine that Postgres is on.

    Args:
        number: Tells it from other hosts; below 200.
        server_url: Of Postgres.
    """

    def __init__(self, number: int, server_url: str) -> None:
        self._namespace = f"ev{os.getpid()}h{number}" if can_make_namespaces() else ""
        self._link = f"ev{os.getpid() % 100000}l{number}"
        address = "127.0.0.1"
        if self._namespace:
            address = f"10.{86 + number % 100}.{os.getpid() % 250}.1"
            self._make(address)
        parts = urlsplit(server_url)
        host = parse_qs(parts.query).get("host", [parts.hostname or "localhost"])[0]
        port = parse_qs(parts.query).get("port", [str(parts.port or 5432)])[0]
        self._relay = subprocess.Popen(
            [sys.executable, "-c", RELAY, address, host, port],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._relay.stdout is not None
        self._place = f"{address}:{self._relay.stdout.readline().strip()}"

    def _make(self, address: str) -> None:
        inside = f"{self._link}i"
        near, far = f"{address}/24", f"{address.rsplit('.', 1)[0]}.2/24"
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", self._namespace)
        _ip("address", "add", near, "dev", self._link)
        _ip("link", "set", self._link, "up")
        _ip("-n", self._namespace, "address", "add", far, "dev", inside)
        _ip("-n", self._namespace, "link", "set", inside, "up")
        _ip("-n", self._namespace, "link", "set", "lo", "up")

    def url(self, url: str) -> str:
        """Give a database's URL as this host must use it."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@{self._place}" if user else self._place, query=""))

    def command(self, *arguments: str) -> list[str]:
        """Give the command line that runs a program on this host."""
        return ["ip", "netns", "exec", self._namespace, *arguments] if self._namespace else [*arguments]

    def cut(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        if self._namespace:
            _ip("link", "set", self._link, "down")
        else:
            self._relay.send_signal(signal.SIGUSR1)

    def heal(self) -> None:
        """Put the cable in again."""
        if self._namespace:
            _ip("link", "set", self._link, "up")
        else:
            self._relay.send_signal(signal.SIGUSR2)

    def remove(self) -> None:
        """Take the host away."""
        self._relay.kill()
        self._relay.communicate()
        if self._namespace:
            subprocess.run(["ip", "netns", "del", self._namespace], check=False)
            subprocess.run(["ip", "link", "del", self._link], check=False, stderr=subprocess.DEVNULL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
