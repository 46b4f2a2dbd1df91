"""A TCP relay that records what crosses it: the packet log of a test."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """Listens at `address`; each connection goes on to `to` once that is set. `log`: all bytes of each direction of each connection,
    as anyone on the way sees them."""

    def __init__(self) -> None:
        self.to = ""
        self.logs: list[bytearray] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sockets: list[socket.socket] = []
        self._over = False
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def has(self, wanted: bytes) -> bool:
        return any(wanted in log for log in self.logs)

    @property
    def bytes(self) -> int:
        return sum(map(len, self.logs))

    def _accept(self) -> None:
        while not self._over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(near)
            try:
                host, _, port = self.to.rpartition(":")
                far = socket.create_connection((host, int(port)), 10.0)
            except (OSError, ValueError):
                near.close()
                continue
            far.settimeout(None)
            self._sockets.append(far)
            for one, other in ((near, far), (far, near)):
                log = bytearray()
                self.logs.append(log)
                thread = threading.Thread(target=_move, args=(one, other, log), daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        self._over = True
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _move(one: socket.socket, other: socket.socket, log: bytearray) -> None:
    with contextlib.suppress(OSError):
        while piece := one.recv(65_536):
            log += piece
            other.sendall(piece)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
