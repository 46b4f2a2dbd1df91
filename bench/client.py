"""HTTP/1.1 on one kept-alive connection with blocking sockets: a client that measures must cost little itself."""

from __future__ import annotations

import json
import socket
from typing import Any, Self

READ_BYTES = 1 << 16


class Client:
    """`address`: "host:port", or the path of a Unix socket. One request at a time; only responses with a Content-Length."""

    def __init__(self, address: str, timeout_s: float = 60.0) -> None:
        if address.startswith("/"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout_s)
            self._socket.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)), timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def ask(self, method: str, path: str, host: str = "localhost", body: bytes = b"") -> tuple[int, bytes]:
        """Status and body. Raises OSError when the connection breaks or the response is invalid."""
        kind = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{kind}\r\n".encode() + body)
        head = self._until_empty_line()
        status = int(head[9:12])
        length = next((line[15:] for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), None)
        if length is None:
            raise OSError(f"an answer without a length: {head[:200]!r}")
        return status, self._exactly(int(length))

    def json(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        status, content = self.ask(method, path, body=b"" if body is None else json.dumps(body).encode())
        return status, json.loads(content) if content else None

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self) -> None:
        part = self._socket.recv(READ_BYTES)
        if not part:
            raise OSError("the connection was closed")
        self._rest += part

    def _until_empty_line(self) -> bytes:
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        body, self._rest = self._rest[:size], self._rest[size:]
        return body
