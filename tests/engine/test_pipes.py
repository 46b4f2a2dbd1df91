"""Large answers are moved through pipes while there are enough descriptors and memory for them, else copied."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from sdlb.wire.engine_pb2 import Listener
from tests.compliance.recorder import OK, Recorder
from tests.engine.engine import Engine
from tests.engine.http1 import status

LISTENERS = [
    Listener(key="http", address="127.0.0.1:0"),
    Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE),
]
SIZE = 8_000_000
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + bytes(SIZE)
GET = b"GET /%s HTTP/1.1\r\nHost: www.example\r\n%s\r\n"


def script(request: bytes, _number: int) -> bytes:
    return LARGE if b"/large" in request else OK


def download(stack: ExitStack, engine: Engine) -> socket.socket:
    """One that has begun, and is read no further."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(20)
    client.connect(engine.address["http"])
    stack.enter_context(client)
    client.sendall(GET % (b"large", b""))
    assert client.recv(9) == b"HTTP/1.1 "
    return client


def rest(client: socket.socket) -> int:
    got = 9
    while got < SIZE and (piece := client.recv(1 << 20)):
        got += len(piece)
    return got


def test_downloads_leave_the_last_descriptors_to_nodes() -> None:
    with Recorder(script) as endpoint, Engine(LISTENERS, workers=1, descriptors=200) as engine, ExitStack() as stack:
        engine.serve("*", endpoint.endpoint)
        clients = [download(stack, engine) for _ in range(45)]
        engine.counter("pipes_refused_total", 10)
        for _ in range(3):
            with socket.create_connection(engine.address["node"], timeout=5) as parent:
                parent.sendall(GET % (b"", b"sdlb-to: web/1.0.0 *\r\n"))
                assert status(parent) == 200
        for client in clients[:5]:
            assert rest(client) >= SIZE


def test_pipes_are_bounded_in_number_and_come_back(many_files: None) -> None:
    with Recorder(script) as endpoint, Engine(LISTENERS, workers=2) as engine:
        engine.serve("*", endpoint.endpoint)
        with ExitStack() as stack:
            clients = [download(stack, engine) for _ in range(204)]
            engine.counter("pipes_refused_total", 12)
            for client in clients[-3:]:
                assert rest(client) >= SIZE
        refused = engine.counter("pipes_refused_total", 12)
        with ExitStack() as stack:
            assert rest(download(stack, engine)) >= SIZE
        assert engine.counters["pipes_refused_total"] == refused
