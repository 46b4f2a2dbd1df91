"""WebSockets over HTTP/1.1 (the package websockets) and over HTTP/2 (extended CONNECT, RFC 8441, by hyper-h2)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from sdlb.wire.engine_pb2 import Listener
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine

SUBPROTOCOL = Subprotocol("chat")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Engine([Listener(key="http", address="127.0.0.1:0", public=True)]) as engine:
            engine.serve("*", f"127.0.0.1:{server.socket.getsockname()[1]}")
            yield engine
        server.shutdown()


def test_over_http1(engine: Engine) -> None:
    with connect("ws://{}:{}/x".format(*engine.address["http"]), max_size=None, subprotocols=[SUBPROTOCOL]) as client:
        for message in ("hi", "ü" * 1000, bytes(3_000_000)):
            client.send(message)
            assert client.recv(timeout=10) == message


class Http2:
    """One stream that was opened by an extended CONNECT."""

    def __init__(self, address: tuple[str, int], *, protocol: str = "websocket", path: str = "/x") -> None:
        self.status, self.data, self.ended = "", b"", False
        self.fields: dict[str, str] = {}
        self._socket = socket.create_connection(address, timeout=10)
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self._h2.initiate_connection()
        self._send()
        fields = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path)]
        self._h2.send_headers(
            1,
            [*fields, (":authority", "a.example"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")],
        )
        self._send()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, data: bytes) -> None:
        self._h2.send_data(1, data)
        self._send()

    def end(self) -> None:
        self._h2.end_stream(1)
        self._send()

    def read(self, size: int) -> bytes:
        while len(self.data) < size and not self.ended:
            self.turn()
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def turn(self) -> None:
        received = self._socket.recv(65536)
        if not received:
            self.ended = True
        for event in self._h2.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                self.fields = {str(name): str(value) for name, value in event.headers or []}
                self.status = self.fields[":status"]
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data or b""
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated):
                self.ended = True
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._socket.sendall(self._h2.data_to_send())


def message(text: bytes) -> bytes:
    return Frame(Opcode.BINARY, text).serialize(mask=True)


def test_over_http2(engine: Engine) -> None:
    with Http2(engine.address["http"]) as client:
        while not client.status:
            client.turn()
        assert client.status == "200" and client.fields["sec-websocket-protocol"] == "chat"
        assert "sec-websocket-accept" not in client.fields and "upgrade" not in client.fields
        for text in (b"hi", b"x" * 10_000):
            client.write(message(text))
            echoed = Frame(Opcode.BINARY, text).serialize(mask=False)
            assert client.read(len(echoed)) == echoed
        client.write(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        assert client.read(4) == Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False)
        client.end()
        while not client.ended:
            client.turn()


def test_another_protocol_is_refused(engine: Engine) -> None:
    with Http2(engine.address["http"], protocol="connect-udp") as client:
        while not client.status and not client.ended:
            client.turn()
        assert client.status == "405"


def test_an_endpoint_that_answers_another_handshake(engine: Engine) -> None:
    """Its 101 must be the answer to the key that it was sent, else nothing of it reaches the client."""
    bad = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nsecret"
    )
    with Recorder(lambda _request, _number: bad) as recorder:
        engine.serve("bad.example/*", recorder.endpoint, version="2.0.0")
        engine.serve("a.example/bad", recorder.endpoint, version="3.0.0")
        with Http2(engine.address["http"], path="/bad") as client:
            while not client.status and not client.ended:
                client.turn()
            assert client.status != "200" and b"secret" not in client.data
