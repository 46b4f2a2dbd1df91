"""Dead connections are found while requests wait on them, and not used again.

Each timeout of the engine is a minute here unless a test sets it: what is closed earlier was detected.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sdlb.wire.engine_pb2 import Limits, Listener, Target
from tests.certificates import needs_openssl
from tests.compliance.recorder import OK, Recorder
from tests.engine.certificates import Authority
from tests.engine.elsewhere import Elsewhere
from tests.engine.engine import Engine, until
from tests.engine.http2_endpoint import Connection, Http2Endpoint
from tests.engine.test_links import NODE, node

HTTP = Listener(key="http", address="127.0.0.1:0")
WITHIN_S = 8
"""Generous: it takes two."""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as elsewhere:
        yield elsewhere


class Asked:
    """A request that was sent."""

    def __init__(self, engine: Engine, method: str = "GET", path: str = "/") -> None:
        self._socket = socket.create_connection(engine.address["http"], timeout=WITHIN_S)
        fields = "Host: a.example\r\nConnection: close\r\nContent-Length: 0\r\n"
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode())

    def status(self) -> int:
        """Of the answer, which is read to its end: what comes of it later would be a sign of life."""
        with self._socket as connection, connection.makefile("rb") as answer:
            return int(answer.read()[9:12])


def ask(engine: Engine, method: str = "GET", path: str = "/") -> int:
    return Asked(engine, method, path).status()


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("kind", [Target.INSTANCE, Target.NODE], ids=["instance", "node"])
def test_in_plaintext(elsewhere: Elsewhere, recorder: Recorder, kind: Target.Kind, arrives: bool) -> None:
    """`arrives`: the request has reached the other end when the cable is pulled, and no byte is unacknowledged."""
    may, both = threading.Event(), threading.Barrier(2)

    def script(request: bytes, _number: int) -> bytes | None:
        if b"/never" in request:
            may.wait(60)
        else:
            both.wait(10)
        return OK

    with elsewhere.make(lambda: Recorder(script, host=elsewhere.there)) as gone, Engine([HTTP], workers=1) as engine:
        engine.serve("*", gone.endpoint, kind=kind)
        if arrives:
            waiting = [Asked(engine, method, "/never") for method in ("GET", "POST")]
            until(lambda: len(gone.completed) == 2)
            elsewhere.vanish()
        else:
            # On connections that are kept: two of them, as neither is answered before both have arrived.
            for each in [Asked(engine) for _ in range(2)]:
                assert each.status() == 200
            elsewhere.vanish()
            waiting = [Asked(engine, method, "/never") for method in ("GET", "POST")]
            engine.counter("requests_total", 4)
        engine.serve("*", recorder.endpoint)
        assert [each.status() for each in waiting] == [200, 502]
        engine.counter("upstream_silent_total", 2)
        assert {ask(engine) for _ in range(10)} == {200}
        may.set()


@needs_openssl
def test_a_link_to_a_node(elsewhere: Elsewhere, recorder: Recorder, authority: Authority) -> None:
    there = Listener(key="node", address=f"{elsewhere.there}:0", kind=Listener.NODE, tls=True)
    may = threading.Event()
    with ExitStack() as stack:
        script = lambda _request, _number: OK if may.wait(60) else None  # noqa: E731
        silent = stack.enter_context(elsewhere.make(lambda: Recorder(script)))
        edge = stack.enter_context(node("edge-1", authority, HTTP, NODE, workers=1))
        gone = stack.enter_context(elsewhere.make(lambda: node("host-1", authority, there, workers=1)))
        good = stack.enter_context(node("host-2", authority, NODE, workers=1))
        gone.serve("*", silent.endpoint)
        good.serve("*", recorder.endpoint)
        edge.serve("*", "{}:{}".format(*gone.address["node"]), node="host-1")
        waiting = [Asked(edge, method) for method in ("GET", "POST")]
        until(lambda: len(silent.completed) == 2)
        edge.serve("*", "{}:{}".format(*good.address["node"]), node="host-2")
        elsewhere.vanish()
        assert [each.status() for each in waiting] == [200, 502]
        assert {ask(edge) for _ in range(10)} == {200}
        edge.counter("timeout_link_total")
        may.set()


class FirstOnly:
    """The first connection answers one request and is silent then; the others answer normally."""

    def __init__(self) -> None:
        self._first: Connection | None = None

    def __call__(self, connection: Connection, stream: int, count: int) -> None:
        if count == 0:
            self._first = connection
        if count == 0 or connection is not self._first:
            connection.answer(stream)


def test_a_dead_connection_of_an_endpoint_is_left_when_a_request_is_late() -> None:
    with (
        Http2Endpoint(FirstOnly()) as endpoint,
        Engine([HTTP], workers=1, limits=Limits(response_timeout_ms=700)) as engine,
    ):
        endpoint.answers_pings = False
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        assert [ask(engine, "POST") for _ in range(4)] == [200, 504, 200, 200]
        assert len(endpoint.connections) == 2


def test_a_slow_endpoint_is_pinged_once() -> None:
    """A gRPC server closes connections that are pinged too often."""
    with (
        Http2Endpoint(FirstOnly()) as endpoint,
        Engine([HTTP], workers=1, limits=Limits(response_timeout_ms=4_000)) as engine,
    ):
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        assert [ask(engine, "POST") for _ in range(2)] == [200, 504]
        assert (endpoint.pings, len(endpoint.connections)) == (1, 1)
