"""The endpoint behind the canary route of `sdlb audit --attack`: it records what it receives, and answers whole requests."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import Self

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
RECEIVED_BYTES_MAX = 64 << 20
"""More is not recorded: no attack sends as much."""


class Canary:
    """Listens on a port of the loopback address, one thread for each connection. A context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._received: list[bytes] = []
        self._completed: list[bytes] = []
        self._bytes = 0
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def received(self, mark: bytes) -> bool:
        """Whether any byte string of a request had the mark."""
        with self._lock:
            return any(mark in piece for piece in self._received)

    def completed(self, mark: bytes) -> list[bytes]:
        """Heads and bodies of the whole requests with the mark."""
        with self._lock:
            return [request for request in self._completed if mark in request]

    def forget(self) -> None:
        with self._lock:
            self._received.clear()
            self._completed.clear()
            self._bytes = 0

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                rest += piece
                with self._lock:
                    self._bytes += len(piece)
                    if self._bytes <= RECEIVED_BYTES_MAX:
                        self._received.append(rest[-(len(piece) + 200) :])  # a mark may lie across two pieces
                while (size := whole(rest)) is not None:
                    with self._lock:
                        self._completed.append(rest[:size])
                    rest = rest[size:]
                    connection.sendall(ANSWER)
        connection.close()


def whole(data: bytes) -> int | None:
    """The size of the first request in `data`; None: it is not complete. Of a body that cannot be framed all counts, to be seen."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, place = data[: end + 2], end + 4
    if b"\r\ntransfer-encoding:" not in head.lower():
        found = _LENGTH.search(head)
        place += int(found[1]) if found else 0
        return place if len(data) >= place else None
    while (line := data.find(b"\r\n", place)) >= 0:
        try:
            size = int(data[place:line].split(b";")[0], 16)
        except ValueError:
            return len(data)
        if size == 0:
            last = line if data.startswith(b"\r\n\r\n", line) else data.find(b"\r\n\r\n", line)
            return None if last < 0 else last + 4
        place = line + 2 + size + 2
        if len(data) < place:
            return None
    return None
