"""Log lines of HAProxy over a Unix socket, written as the native engine writes its access log.

A thread of its own writes, so that a slow disk does not hold control up. Above `LINES_MAX` waiting lines, lines are dropped
and counted, and so are lines that HAProxy sends faster than control reads them.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from sdlb.adapters.haproxy.names import decode
from sdlb.adapters.haproxy.rules import LOG_FIELDS

LINES_MAX = 10_000
DATAGRAM_BYTES = 65_536
BATCH = 200
"""Datagrams that are read in a row before other work of the event loop goes on."""
_FIELDS = (
    "node",
    "listener",
    "client",
    "status",
    "bytes",
    "took",
    "retries",
    "end",
    "backend",
    "server",
    "time",
    *LOG_FIELDS,
)
_ERRORS = {"C": "client_abort", "c": "client_abort", "S": "connection_terminated", "s": "http_response_timeout"}


class AccessLog:
    """`endpoint_of`: "g7/s12" -> the key of the upstream."""

    def __init__(self, socket_path: Path, endpoint_of: Callable[[str], str]) -> None:
        self.dropped = 0
        self._path = socket_path
        self._endpoint_of = endpoint_of
        self._socket: socket.socket | None = None
        self._file = ""
        self._queue: queue.Queue[tuple[str, str] | None] = queue.Queue(LINES_MAX)
        self._thread: threading.Thread | None = None
        self._reopen = threading.Event()

    def configure(self, file: str) -> None:
        """Writes to `file` from now on; "": nothing. Raises OSError."""
        if file:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o640))
        self._file = file
        if file and self._socket is None:
            self._listen()

    def reopen(self) -> None:
        self._reopen.set()

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._thread is not None:
            self._queue.put(None)
            self._thread = None

    def _listen(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(str(self._path))
        os.chmod(self._path, 0o600)
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for _ in range(BATCH):
            try:
                data = self._socket.recv(DATAGRAM_BYTES) if self._socket is not None else b""
            except OSError:
                return
            text = line(data.decode("utf-8", "replace"), self._endpoint_of) if self._file and data else None
            if text is not None:
                try:
                    self._queue.put_nowait((self._file, text))
                except queue.Full:
                    self.dropped += 1

    def _write(self) -> None:
        name, file = "", None
        while (item := self._queue.get()) is not None:
            wanted, text = item
            if wanted != name or self._reopen.is_set():
                self._reopen.clear()
                if file is not None:
                    file.close()
                try:
                    name, file = wanted, open(wanted, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
                except OSError:
                    name, file = "", None
            if file is None:
                self.dropped += 1
                continue
            try:
                file.write(text)
            except OSError:
                self.dropped += 1
        if file is not None:
            file.close()


def line(text: str, endpoint_of: Callable[[str], str]) -> str | None:
    """The JSON line of one line of `rules.py`'s log format. None: it is something else."""
    words = text.strip().split(" ")
    if len(words) != len(_FIELDS):
        return None
    found = dict(zip(_FIELDS, ("" if word == "-" else word for word in words), strict=True))
    try:
        entry: dict[str, object] = {
            "time": float(found["time"]),
            "node": found["node"],
            "listener": found["listener"],
            "client": found["client"],
            "request_id": decode(found["id"]),
            "method": decode(found["m"]),
            "host": decode(found["h"]),
            "target": decode(found["t"]),
            "status": max(0, int(found["status"])),
            "bytes": int(found["bytes"]),
            "took_us": max(0, int(found["took"])) * 1000,
            "tries": int(found["retries"].lstrip("+")) + 1,
        }
    except ValueError:
        return None
    service, version, *_ = [decode(part) for part in (*decode(found["n"]).split("|"), "")]
    if service:
        endpoint = endpoint_of(f"{found['backend']}/{found['server']}")
        entry |= {"service": service, "version": version, "endpoint": endpoint}
        if not endpoint:
            entry["tries"] = 0
    if found["end"][:1] in _ERRORS:
        entry["error"] = _ERRORS[found["end"][0]]
    return json.dumps(entry, ensure_ascii=True, separators=(",", ":")) + "\n"
