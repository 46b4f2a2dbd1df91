"""Endpoints that take nothing: neither what they are sent, nor connections."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from tests.engine import frames


class Deaf:
    """Speaks HTTP/2 and takes nothing of what it is sent but the first 64 KiB of each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            connection.sendall(frames.frame(frames.SETTINGS, 0, 0))
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    @staticmethod
    def _read(connection: socket.socket) -> None:
        with suppress(OSError):
            while connection.recv(65_536):
                pass


class Full:
    """Its backlog is full, so a new connection waits."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = self._listener.getsockname()
        self.endpoint = f"127.0.0.1:{address[1]}"
        self._waiting = [socket.socket() for _ in range(4)]
        for each in self._waiting:
            each.setblocking(False)
            each.connect_ex(address)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._waiting):
            each.close()
