"""Clients, endpoints and nodes that vanish without a word: no FIN and no reset, as when a machine loses its power or a
cable is pulled."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sdlb.wire.engine_pb2 import Delta, Limits, Listener, Service
from tests.certificates import needs_openssl
from tests.compliance.recorder import OK, Recorder
from tests.engine.certificates import Authority
from tests.engine.elsewhere import Elsewhere
from tests.engine.engine import Engine, until
from tests.engine.frames import Client, request
from tests.engine.http1 import status
from tests.engine.test_links import NODE, node

LIMITS = Limits(
    connect_timeout_ms=500,
    head_timeout_ms=700,
    idle_timeout_ms=1_500,
    body_timeout_ms=700,
    response_timeout_ms=900,
    response_idle_timeout_ms=900,
)
GET = b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + bytes(8_000_000)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as elsewhere:
        yield elsewhere


def ask(engine: Engine, raw: bytes = GET) -> bytes:
    """The answer's status, on a connection of its own."""
    with socket.create_connection(engine.address["http"], timeout=10) as client:
        client.sendall(raw)
        return b"%d" % status(client)


# ------------------------------------------------------------------ clients


def test_clients_that_vanish(elsewhere: Elsewhere, recorder: Recorder) -> None:
    """Idle (unencrypted, kept as a socket only, over HTTP/2), within a header, within a body, with a response in
    flight."""
    listener = Listener(key="http", address=f"{elsewhere.here}:0")
    with Recorder(lambda _request, _number: LARGE) as large, Engine([listener], limits=LIMITS) as engine:
        engine.serve("*", recorder.endpoint)
        engine.serve("large.example/*", large.endpoint, service="large")
        with ExitStack() as stack:
            address = engine.address["http"]

            def client() -> socket.socket:
                return stack.enter_context(elsewhere.make(lambda: socket.create_connection(address, timeout=10)))

            rests = client()
            rests.sendall(GET)
            assert status(rests) == 200
            streams = stack.enter_context(Client(client()))
            assert streams.ask(1, request()) == "200"
            client()  # and one that has sent nothing yet
            client().sendall(GET[:20])
            client().sendall(b"POST / HTTP/1.1\r\nHost: www.example\r\nContent-Length: 100\r\n\r\nhalf")
            client().sendall(b"GET / HTTP/1.1\r\nHost: large.example\r\n\r\n")
            until(lambda: len(large.completed) == 1)
            elsewhere.vanish()
            engine.counter("connections_total", 6)
            engine.counter("timeout_idle_total", 3)
            engine.counter("timeout_head_total", 1)
            engine.counter("timeout_body_total", 2)
            until(lambda: engine.counters.get("connections_open", 0) == 0, "nobody is kept")


# ------------------------------------------------------------------ endpoints


def test_an_endpoint_that_vanishes(elsewhere: Elsewhere) -> None:
    """Its pending requests are answered with 504 in time, with or without an existing connection. Answers that had begun
    are aborted."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
    with (
        elsewhere.make(
            lambda: Recorder(lambda request, _: half if b"/half" in request else OK, host=elsewhere.there)
        ) as gone,
        Engine([Listener(key="http", address="127.0.0.1:0")], limits=LIMITS, workers=1) as engine,
    ):
        engine.serve("*", gone.endpoint)
        with socket.create_connection(engine.address["http"], timeout=10) as client:
            client.sendall(GET.replace(b"/ ", b"/half "))
            assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            assert ask(engine) == b"200"  # on a connection that is kept
            elsewhere.vanish()
            began = time.monotonic()
            assert ask(engine) == b"504"
            while client.recv(65536):
                pass
            assert time.monotonic() - began < 5
        engine.counter("timeout_response_idle_total")
        until(lambda: ask(engine) in (b"503", b"504") and engine.counters.get("timeout_connect_total", 0) > 0)
        engine.counter("timeout_response_total")


def test_requests_to_a_vanished_endpoint_are_answered_by_another(elsewhere: Elsewhere, recorder: Recorder) -> None:
    """When it may be done twice, and a try has a time of its own, or the connection is not there yet."""
    with (
        elsewhere.make(lambda: Recorder(host=elsewhere.there)) as gone,
        Engine([Listener(key="http", address="127.0.0.1:0")], limits=LIMITS) as engine,
    ):
        engine.apply(Delta(put_services=[Service(name="web", try_timeout_ms=200)]))
        engine.serve("*", gone.endpoint, recorder.endpoint)
        until(lambda: ask(engine) == b"200" and len(gone.completed) > 4)
        elsewhere.vanish()
        assert [ask(engine) for _ in range(20)] == [b"200"] * 20
        engine.counter("timeout_try_total")
        engine.counter("timeout_connect_total")


# ------------------------------------------------------------------ nodes


@needs_openssl
def test_a_node_that_vanishes(elsewhere: Elsewhere, authority: Authority) -> None:
    """The one above misses its pongs and gives the link up; a call that waits on it for longer than that ends then."""
    there = Listener(key="node", address=f"{elsewhere.there}:0", kind=Listener.NODE, tls=True)
    limits = Limits(response_timeout_ms=120_000)
    http = Listener(key="http", address="127.0.0.1:0")
    may = threading.Event()
    with (
        elsewhere.make(lambda: Recorder(lambda _request, _number: OK if may.wait(60) else None)) as silent,
        node("edge-1", authority, http, NODE, limits=limits) as edge,
        elsewhere.make(lambda: node("host-1", authority, there, limits=limits)) as host,
    ):
        edge.serve("*", "{}:{}".format(*host.address["node"]), node="host-1")
        host.serve("*", silent.endpoint)
        with socket.create_connection(edge.address["http"], timeout=60) as client:
            client.sendall(GET)
            until(lambda: len(silent.completed) == 1)
            elsewhere.vanish()
            assert status(client) in (502, 504)
        may.set()
        edge.counter("timeout_link_total")
