"""Many requests a second over kept-alive connections, and a small service that answers them: cheaper than `Traffic` and the demo's app.

The service can be a bad one. It answers `/health` well, and of the other requests a fixed part badly, in turn, not by chance.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.e2e.cluster import Node

BATCH = 50
_SERVICE = """from __future__ import annotations
import asyncio, os, signal, sys

ERRORS, MIDDLE, SLOW, BREAKS, REFUSES = {faults!r}
BODY = sys.argv[sys.argv.index("--version") + 1].encode()
parts, server = [0.5] * 4, None

def due(place, part):
    parts[place] += part
    if parts[place] < 1:
        return False
    parts[place] -= 1
    return True

def answer(status):
    return b"HTTP/1.1 %s\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (status, len(BODY), BODY)

class Service(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.rest = transport, b""

    def data_received(self, data):
        self.rest += data
        while b"\\r\\n\\r\\n" in self.rest:
            head, _, self.rest = self.rest.partition(b"\\r\\n\\r\\n")
            self.one(head.split(b" ", 2)[1])

    def one(self, target):
        if target == b"/health":
            self.transport.write(answer(b"200 OK"))
        elif REFUSES:
            server.close()
            self.transport.abort()
        elif due(0, BREAKS):
            self.transport.close()
        elif due(1, ERRORS):
            self.transport.write(answer(b"500 Internal Server Error"))
        else:
            wait_s = 0.1 if due(2, SLOW) else 0.025 if due(3, MIDDLE) else 0.0
            if wait_s:
                asyncio.get_running_loop().call_later(wait_s, self.transport.write, answer(b"200 OK"))
            else:
                self.transport.write(answer(b"200 OK"))

async def main():
    global server
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    await stop.wait()

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Faults:
    """Parts of the requests. `middle` take 25 ms, `slow` 100 ms. To `breaks`, the connection is closed without an answer.
    `refuses`: from the first request on, no connection is accepted."""

    errors: float = 0.0
    middle: float = 0.0
    slow: float = 0.0
    breaks: float = 0.0
    refuses: bool = False

    @property
    def program(self) -> str:
        """The source of the service, for `roles.add`."""
        return _SERVICE.format(faults=(self.errors, self.middle, self.slow, self.breaks, self.refuses))


@dataclass(frozen=True, slots=True)
class Reply:
    """`sent`, `done`: Unix time. `status` 0: the connection broke. `version`: the body."""

    entry: str
    client: str
    sent: float
    done: float
    status: int
    version: str


class _Connection:
    """One request after another; opened again after it was closed."""

    def __init__(self, entry: Node, site: str) -> None:
        self._entry, self._site = entry, site
        self._socket: socket.socket | None = None

    def ask(self, client: str = "") -> Reply:
        cookie = f"cookie: session={client}\r\n" if client else ""
        sent = time.time()
        try:
            status, body = self._answer(f"GET / HTTP/1.1\r\nhost: {self._site}\r\n{cookie}\r\n".encode())
        except (OSError, ValueError):
            self.close()
            status, body = 0, ""
        return Reply(self._entry.name, client, sent, time.time(), status, body)

    def _answer(self, request: bytes) -> tuple[int, str]:
        if self._socket is None:
            host, _, port = self._entry.http.rpartition(":")
            self._socket = socket.create_connection((host, int(port)), timeout=45.0)
        self._socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"content-length"]):
            body += self._more()
        if fields.get(b"connection") == b"close":
            self.close()
        return int(head[9:12]), body.decode()

    def _more(self) -> bytes:
        assert self._socket is not None
        found = self._socket.recv(65536)
        if not found:
            raise ConnectionError("closed")
        return found

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Load:
    """A context manager: at each entry as many connections as there are `clients` groups. Each connection asks for its clients in
    turn, `rate` times a second. A client has one request in flight, and a connection at one entry."""

    def __init__(self, entries: Sequence[Node], site: str, clients: Sequence[Sequence[str]], rate: float) -> None:
        self.replies: list[Reply] = []
        self._site, self._rate = site, rate
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(entry, group), daemon=True)
            for entry, group in zip(itertools.cycle(entries), clients, strict=False)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, entry: Node, group: Sequence[str]) -> None:
        connection, due = _Connection(entry, self._site), time.monotonic()
        for client in itertools.cycle(group):
            due = max(due + 1 / self._rate, time.monotonic() - 1.0)
            if self._ending.wait(max(0.0, due - time.monotonic())):
                break
            self.replies.append(connection.ask(client))
        connection.close()

    def count(self, since: float = 0.0, until: float = 1e12) -> Counter[tuple[str, int]]:
        """Replies by version and status, of those that were done in this time."""
        return Counter((each.version, each.status) for each in list(self.replies) if since <= each.done < until)


def versions(entry: Node, site: str, requests: int, connections: int = 4) -> Counter[str]:
    """Versions that answer so many requests at this entry, which come as fast as they are answered: BATCH at a time on each connection."""
    counts: list[Counter[str]] = []
    threads = [
        threading.Thread(target=lambda: counts.append(_pipelined(entry, site, requests // connections)))
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts, Counter[str]())


def _pipelined(entry: Node, site: str, requests: int) -> Counter[str]:
    found: Counter[str] = Counter()
    host, _, port = entry.http.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=45.0) as connection, connection.makefile("rb") as replies:
        for first in range(0, requests, BATCH):
            count = min(BATCH, requests - first)
            connection.sendall(f"GET / HTTP/1.1\r\nhost: {site}\r\n\r\n".encode() * count)
            for _ in range(count):
                status, length = int(replies.readline()[9:12]), 0
                while (line := replies.readline()) != b"\r\n":
                    if line[:16].lower() == b"content-length: ":
                        length = int(line[16:])
                body = replies.read(length).decode()
                found[body if status == 200 else f"status {status}"] += 1
    return found


def went_back(replies: Iterable[Reply], new: str) -> list[Reply]:
    """Replies of another version to a client that had one of the new version before."""
    reached: set[str] = set()
    found: list[Reply] = []
    for each in sorted(replies, key=lambda reply: reply.sent):
        if each.version == new:
            reached.add(each.client)
        elif each.client in reached:
            found.append(each)
    return found
