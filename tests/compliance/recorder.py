"""The endpoint behind the attacked node, which records every byte that it receives.

It answers each complete request and keeps these in `completed`. So a test can assert that nothing of an attack was
forwarded, or at least nothing that an endpoint would have acted on. A `script` makes it misbehave.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = re.compile(rb"^.*?\r\n\r\n", re.DOTALL)

Script = Callable[[bytes, int], bytes | None]
"""(the request whole, its number on its connection from 0) -> the raw answer; None: close without one."""


class Recorder:
    """Listens on a port; one thread a connection."""

    def __init__(self, script: Script | None = None, *, greeting: bytes = b"", host: str = "127.0.0.1") -> None:
        self.script: Script | None = script
        self.greeting = greeting
        """Sent on each new connection before any request."""
        self.connections: list[bytearray] = []
        """All bytes received, by connection."""
        self.completed: list[bytes] = []
        """Requests that arrived whole: heads and bodies."""
        self.owing: set[int] = set()
        """Connections that have neither been answered yet nor closed."""
        self.closed = 0
        """Connections that the node has closed."""
        self._over = False
        self._listener = socket.create_server((host, 0), backlog=128)
        self.sockets: list[socket.socket] = []
        self.endpoint = f"{host}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def received(self) -> bytes:
        return b"".join(bytes(connection) for connection in self.connections)

    def close(self) -> None:
        self._over = True
        for item in (self._listener, *self.sockets):
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.sockets.append(connection)
            if self._over:  # it came while the others were closed
                connection.close()
                return
            self.owing.add(connection.fileno())
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        seen = bytearray()
        self.connections.append(seen)
        rest = b""
        number = 0
        with contextlib.suppress(OSError):
            if self.greeting:
                connection.sendall(self.greeting)
            while piece := connection.recv(65536):
                seen += piece
                rest += piece
                while (length := whole(rest)) is not None:
                    request, rest = rest[:length], rest[length:]
                    self.completed.append(request)
                    answer = OK if self.script is None else self.script(request, number)
                    number += 1
                    if answer is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(answer)
                    self.owing.discard(connection.fileno())
        self.owing.discard(connection.fileno())
        self.closed += 1


def whole(data: bytes) -> int | None:
    """Bytes of the first request in `data` if it is there whole; what can't be framed counts as whole, to be seen."""
    found = HEAD.match(data)
    if found is None:
        return None
    head = found[0].lower()
    if b"\r\ntransfer-encoding:" in head:
        return _chunked(data, found.end())
    length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head)
    end = found.end() + (int(length[1]) if length else 0)
    return end if len(data) >= end else None


def _chunked(data: bytes, place: int) -> int | None:
    while True:
        end = data.find(b"\r\n", place)
        if end < 0:
            return None
        try:
            size = int(data[place:end].split(b";")[0], 16)
        except ValueError:
            return len(data)
        if size == 0:
            over = data.find(b"\r\n\r\n", end - 2) if data[end : end + 4] != b"\r\n\r\n" else end
            return None if over < 0 else over + 4
        place = end + 2 + size + 2
        if len(data) < place:
            return None
