"""The method PRI begins the HTTP/2 preface: no client may reach a child's control through it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from sdlb.wire.engine_pb2 import Listener
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine
from tests.engine.fixtures import recording
from tests.engine.frames import PREFACE, Client, request
from tests.engine.http1 import status as answered

recorder = recording("module")
GET = b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n"
STARTS = {
    "a path": (b"PRI /x HTTP/1.1\r\nHost: www.example\r\n\r\n", "400"),
    "*": (b"PRI * HTTP/1.1\r\nHost: www.example\r\n\r\n", "400"),
    "the preface's first line": (b"PRI * HTTP/2.0\r\nHost: www.example\r\n\r\n", "505"),
    "a preface but for its last bytes": (PREFACE[:-6] + b"XX\r\n\r\n", "505"),
}


@pytest.fixture(scope="module")
def tree(recorder: Recorder) -> Iterator[tuple[Engine, Engine]]:
    """An edge with a child, in plaintext."""
    with ExitStack() as stack:
        node = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)
        http = Listener(key="http", address="127.0.0.1:0")
        child = stack.enter_context(Engine([node], name="child", workers=1))
        child.serve("*", recorder.endpoint)
        edge = stack.enter_context(Engine([http], name="edge", workers=1))
        edge.serve("*", "{}:{}".format(*child.address["node"]), node="child")
        yield edge, child


def status(connection: socket.socket, raw: bytes) -> str:
    with suppress(OSError):
        connection.sendall(raw)
        return str(answered(connection))
    return "closed"


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("behind", [False, True], ids=["first", "second"])
def test_no_request_begins_as_the_preface_does(tree: tuple[Engine, Engine], start: str, behind: bool) -> None:
    edge, child = tree
    raw, refused = STARTS[start]
    with socket.create_connection(edge.address["http"], timeout=20) as connection:
        if behind:
            assert status(connection, GET) == "200"
        assert status(connection, raw) == refused
    with socket.create_connection(child.address["node"], timeout=20) as connection:
        assert status(connection, raw) == refused
    assert child.counters.get("control_streams_refused_total", 0) == 0


def test_no_stream_has_this_method(tree: tuple[Engine, Engine]) -> None:
    edge, child = tree
    with Client(edge.address["http"]) as client:
        for stream in (1, 3, 5, 7):
            assert client.ask(stream, request(path="/x", method="PRI")) == "400"
        # The child was not ejected.
        assert client.ask(9, request()) == "200"
    assert child.counters.get("control_streams_refused_total", 0) == 0
