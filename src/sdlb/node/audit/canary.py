"""The endpoint behind the canary route of `sdlb audit --attack`: it records what it receives, and answers whole requests."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import Self

from sdlb.node.audit.endpoint_rows import Answer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
RECEIVED_BYTES_MAX = 64 << 20
"""More is not recorded: no attack sends as much."""
ENDLESS = b"x" * 65536
ENDLESS_BYTES = 64 << 20
"""More than the buffers of two connections and of the load balancer hold."""
LATER_S = 0.3
WITHIN_S = 5.0


class Canary:
    """Listens on a port of the loopback address, one thread for each connection. A context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._received: list[bytes] = []
        self._completed: list[bytes] = []
        self._bytes = 0
        self._scripts: dict[bytes, Answer] = {}
        self._endless: set[bytes] = set()
        self._gave_up: set[bytes] = set()
        self._later_sent: set[bytes] = set()
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

    def script(self, mark: bytes, answer: Answer) -> None:
        """Requests with the mark get this answer."""
        self._scripts[mark] = answer

    def endless(self, mark: bytes) -> None:
        """Requests with the mark get more than a connection can hold."""
        self._endless.add(mark)

    def gave_up(self, mark: bytes) -> bool:
        """Whether the connection of an endless answer was closed before its end."""
        return mark in self._gave_up

    def wait_for_later(self, mark: bytes) -> None:
        """Until the load balancer has what its script sends unsolicited: no request may be on that connection then."""
        until = time.monotonic() + WITHIN_S
        while mark not in self._later_sent and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(LATER_S)

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
                    request, rest = rest[:size], rest[size:]
                    if not self._answer(connection, request):
                        rest = b""
                        break
                else:
                    continue
                break
        connection.close()

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        """Whether the connection goes on. Raises OSError."""
        mark = next((mark for mark in (*self._scripts, *self._endless) if mark in request), None)
        if mark is None:
            connection.sendall(ANSWER)
            return True
        if mark in self._endless:
            self._answer_without_end(connection, mark)
            return False
        script = self._scripts[mark]
        connection.sendall(script.raw)
        if script.later:
            time.sleep(LATER_S)
            connection.sendall(script.later)
            self._later_sent.add(mark)
        return not script.closes

    def _answer_without_end(self, connection: socket.socket, mark: bytes) -> None:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % ENDLESS_BYTES)
            for _ in range(ENDLESS_BYTES // len(ENDLESS)):
                connection.sendall(ENDLESS)
        except OSError:
            self._gave_up.add(mark)


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
