"""An endpoint that speaks HTTP/2 in plaintext by a script: for what no server in use does on purpose."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import BinaryIO, Self

from hpack import Decoder, Encoder

from tests.engine import frames

REFUSED_STREAM, INTERNAL_ERROR = 7, 2
Script = Callable[["Connection", int, int], None]
"""(the connection, the stream, its number over all connections from 0)"""


class Connection:
    """One that the engine has opened."""

    def __init__(self, socket_: socket.socket) -> None:
        self.socket = socket_
        self._encoder = Encoder()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def answer(self, stream: int, fields: list[frames.Field] | None = None, body: bytes = b"ok",
               trailers: list[frames.Field] | None = None) -> None:  # fmt: skip
        block = self._encoder.encode([(":status", "200"), *(fields or [])], huffman=False)
        self.send(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block))
        self.send(frames.frame(frames.DATA, 0 if trailers else frames.END_STREAM, stream, body))
        if trailers:
            self.headers(stream, trailers)

    def headers(self, stream: int, fields: list[frames.Field]) -> None:
        """The last head of a stream, in as many frames as it takes."""
        block = self._encoder.encode(fields, huffman=False)
        pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        for number, piece in enumerate(pieces):
            kind = frames.CONTINUATION if number else frames.HEADERS
            flags = (0 if number else frames.END_STREAM) | (frames.END_HEADERS if number == len(pieces) - 1 else 0)
            self.send(frames.frame(kind, flags, stream, piece))

    def reset(self, stream: int, reason: int) -> None:
        self.send(frames.frame(frames.RST_STREAM, 0, stream, struct.pack(">I", reason)))

    def go_away(self, last: int) -> None:
        self.send(frames.frame(frames.GOAWAY, 0, 0, struct.pack(">II", last, 0)))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Http2Endpoint:
    """`streams`: heads that came, trailers included, over all connections; `heads`: their fields; `content`: all that came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.streams = 0
        self.connections: list[Connection] = []
        self.heads: list[dict[str, str]] = []
        self.content = b""
        self.pings = 0
        self.closed = 0
        self.answers_pings = True
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()
            connection.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(accepted)
            self.connections.append(connection)
            connection.send(frames.frame(frames.SETTINGS, 0, 0))
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def begin(self, connection: Connection, stream: BinaryIO) -> None:
        """Reads what a connection begins with."""
        stream.read(len(frames.PREFACE))

    def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(OSError), connection.socket.makefile("rb") as stream:
            self.begin(connection, stream)
            decoder, block = Decoder(), b""
            decoder.max_header_list_size = 1 << 20
            while len(head := stream.read(9)) == 9:
                payload = stream.read(int.from_bytes(head[:3], "big"))
                kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == frames.SETTINGS and not flags & 1:
                    connection.send(frames.frame(frames.SETTINGS, 1, 0))
                elif kind == frames.PING and not flags & 1:
                    self.pings += 1
                    if self.answers_pings:
                        connection.send(frames.frame(frames.PING, 1, 0, payload))
                elif kind == frames.DATA:
                    self.content += payload
                elif kind in (frames.HEADERS, frames.CONTINUATION):
                    block += payload
                    if not flags & frames.END_HEADERS:
                        continue
                    head = {str(name): str(value) for name, value in decoder.decode(block)}
                    block = b""
                    with self._lock:
                        self.heads.append(head)
                        count, self.streams = self.streams, self.streams + 1
                    self.script(connection, number, count)
        self.closed += 1
