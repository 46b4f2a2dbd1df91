"""An HTTP/2 client that sends what no client should: frames by hand, on a socket."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Self

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 1, 11
Field = tuple[str, str]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request(host: str = "www.example", path: str = "/", method: str = "GET") -> list[Field]:
    return [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]


class Client:
    """`heard`: the server's result for each stream: its status, "reset N", "goaway N" under stream 0."""

    def __init__(self, address: tuple[str, int] | socket.socket, source: str = "") -> None:
        """To an address, or on a connection that is there. `source`: the address that it comes from."""
        self.heard: dict[int, list[str]] = {}
        self.bodies: dict[int, bytes] = {}
        if isinstance(address, socket.socket):
            self._socket = address
        else:
            self._socket = socket.create_connection(address, timeout=10, source_address=(source, 0))
        self._encoder = Encoder()
        self._encoder.header_table_size = 0
        self._rest = b""
        self._decoder = Decoder()
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def patience(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def send(self, data: bytes) -> bool:
        """False: the server is gone."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def block(self, fields: list[Field]) -> bytes:
        return self._encoder.encode(fields, huffman=False)

    def headers(self, stream: int, fields: list[Field], flags: int = END_STREAM | END_HEADERS) -> bytes:
        return frame(HEADERS, flags, stream, self.block(fields))

    def ask(self, stream: int, fields: list[Field], body: bytes = b"") -> str:
        """Sends a request and gives what became of it."""
        self.send(self.headers(stream, fields, END_HEADERS if body else END_HEADERS | END_STREAM))
        if body:
            self.send(frame(DATA, END_STREAM, stream, body))
        return self.outcome(stream)

    def outcome(self, stream: int) -> str:
        """The first result for the stream, or for the connection."""
        while stream not in self.heard and 0 not in self.heard and self.read():
            pass
        return (self.heard.get(stream) or self.heard.get(0) or ["closed"])[0]

    def end(self) -> str:
        """Reads until the server closes; gives its last GOAWAY."""
        with contextlib.suppress(OSError):
            while self.read():
                pass
        return self.heard.get(0, ["closed"])[-1]

    def read(self) -> bool:
        """One frame. False: it has ended."""
        head = self._exactly(9)
        if head is None:
            return False
        payload = self._exactly(int.from_bytes(head[:3], "big"))
        if payload is None:
            return False
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == SETTINGS and not flags & 1:
            self.send(frame(SETTINGS, 1, 0))
        elif kind == HEADERS:
            fields = {_text(name): _text(value) for name, value in self._decoder.decode(payload)}
            if ":status" in fields:
                self.heard.setdefault(stream, []).append(fields[":status"])
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        elif kind == RST_STREAM:
            self.heard.setdefault(stream, []).append(f"reset {int.from_bytes(payload, 'big')}")
        elif kind == GOAWAY:
            self.heard.setdefault(0, []).append(f"goaway {int.from_bytes(payload[4:8], 'big')}")
        return True

    def _exactly(self, size: int) -> bytes | None:
        while len(self._rest) < size:
            try:
                piece = self._socket.recv(65536)
            except ConnectionError:
                return None
            if not piece:
                return None
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
