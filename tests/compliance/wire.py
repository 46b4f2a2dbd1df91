"""A raw client: sends exact bytes, reads the answer, and reports whether the connection was closed."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.e2e.cluster import Node, metric, until

SITE = "www.example"
HOST = f"Host: {SITE}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Talk:
    """`statuses` of all final answers in order; `closed`: the node ended the connection; `seconds` until then."""

    raw: bytes
    closed: bool
    seconds: float

    @property
    def statuses(self) -> list[int]:
        found: list[int] = []
        for part in self.raw.split(b"HTTP/1.1 ")[1:]:
            status = int(part[:3])
            if status >= 200 or status == 101:
                found.append(status)
        return found


def dial(node: Node, timeout_s: float = 5.0) -> socket.socket:
    host, port = node.http.split(":")
    return socket.create_connection((host, int(port)), timeout=timeout_s)


def listen(connection: socket.socket, quiet_s: float, whole: int = 0) -> Talk:
    """Reads until the node closes, or nothing came for `quiet_s`, or `whole` answers have begun."""
    begin = time.monotonic()
    raw, closed = b"", False
    connection.settimeout(quiet_s)
    while not whole or raw.count(b"HTTP/1.1 ") < whole:
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            break
        except ConnectionError:
            closed = True
            break
        if not piece:
            closed = True
            break
        raw += piece
    return Talk(raw, closed, time.monotonic() - begin)


def say(node: Node, *pieces: bytes, quiet_s: float = 2.0, pause_s: float = 0.0) -> Talk:
    """One connection: sends the pieces, then listens."""
    with dial(node) as connection:
        for piece in pieces:
            with contextlib.suppress(ConnectionError):  # it may have been refused already
                connection.sendall(piece)
            if pause_s:
                time.sleep(pause_s)
        return listen(connection, quiet_s)


@contextlib.contextmanager
def counts(node: Node, counter: str | None) -> Iterator[None]:
    """What is done meanwhile shows in this counter of the engine; `None`: in none."""
    name = f"sdlb_engine_{counter}"
    before = metric(node, name) if counter else 0
    yield
    if counter:
        until(f"{counter} grows", lambda: metric(node, name) > before)


def request(target: str = "/", *fields: bytes, method: str = "GET", body: bytes = b"") -> bytes:
    """A request as it should be."""
    head = f"{method} {target} HTTP/1.1\r\n".encode() + HOST
    return head + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body
