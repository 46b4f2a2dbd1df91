"""Unencrypted client connections that have been idle for a while are kept as sockets only, without a visible
difference."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager

import h2.config
import h2.connection
import h2.events
import pytest

from sdlb.wire.engine_pb2 import Limits, Listener
from tests.engine.answers import answering
from tests.engine.engine import WITHIN_S, Engine

HTTP = [Listener(key="http", address="127.0.0.1:0")]
MANY = 2_000


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with answering() as endpoint:
        yield endpoint


@contextmanager
def serving(backend: str, limits: Limits | None = None, workers: int = 1) -> Generator[Engine]:
    with Engine(HTTP, limits=limits, workers=workers) as engine:
        engine.serve("*", backend)
        yield engine


def connect(stack: ExitStack, engine: Engine) -> socket.socket:
    return stack.enter_context(socket.create_connection(engine.address["http"], WITHIN_S))


def ask(client: socket.socket) -> http.client.HTTPResponse:
    client.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    return answer(client)


def answer(client: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(client)
    with response:
        response.begin()
        body = response.read()
    assert response.status != 200 or body == b"ok"
    return response


def has_ended(client: socket.socket) -> bool:
    return client.recv(1) == b""


def until(engine: Engine, name: str, value: int) -> None:
    end = time.monotonic() + WITHIN_S
    while engine.counters.get(name) != value:
        assert time.monotonic() < end, f"{name} is {engine.counters.get(name)}, not {value}"
        time.sleep(0.02)


def test_thousands_sleep_and_each_is_served_when_it_speaks(backend: str, many_files: None) -> None:
    with serving(backend, workers=2) as engine, ExitStack() as stack:
        clients = [connect(stack, engine) for _ in range(MANY)]
        # Half of them have had no request yet.
        assert all(ask(client).status == 200 for client in clients[::2])
        until(engine, "connections_asleep", MANY)
        assert engine.counters["connections_open"] == MANY
        assert all(ask(client).status == 200 for client in clients)
        until(engine, "connections_asleep", MANY)
        # Those whose clients leave are gone.
        for client in clients[::2]:
            client.close()
        until(engine, "connections_open", MANY // 2)
        until(engine, "connections_asleep", MANY // 2)
        assert engine.counters.get("timeout_idle_total", 0) == 0
        assert ask(clients[1]).status == 200


def test_a_request_in_pieces_wakes_one(backend: str) -> None:
    with serving(backend) as engine, ExitStack() as stack:
        client = connect(stack, engine)
        until(engine, "connections_asleep", 1)
        client.sendall(b"GET / HTTP/1.1\r\nHo")
        until(engine, "connections_asleep", 0)
        client.sendall(b"st: example.com\r\n\r\n")
        assert answer(client).status == 200


def test_the_one_that_has_rested_longest_makes_room(backend: str) -> None:
    with serving(backend, Limits(connections=3)) as engine, ExitStack() as stack:
        clients = [connect(stack, engine) for _ in range(3)]
        # The first is the last to become idle.
        for client in [*clients, clients[0]]:
            assert ask(client).status == 200
        until(engine, "connections_asleep", 3)
        assert ask(connect(stack, engine)).status == 200
        assert has_ended(clients[1])
        assert ask(connect(stack, engine)).status == 200
        assert has_ended(clients[2])
        assert ask(clients[0]).status == 200
        until(engine, "connections_evicted_total", 2)
        until(engine, "connections_open", 3)


def test_it_is_closed_when_its_time_is_over(backend: str) -> None:
    with serving(backend, Limits(idle_timeout_ms=3_000)) as engine, ExitStack() as stack:
        clients = [connect(stack, engine) for _ in range(3)]
        assert ask(clients[0]).status == 200
        until(engine, "connections_asleep", 3)
        assert all(has_ended(client) for client in clients)
        until(engine, "timeout_idle_total", 3)
        until(engine, "connections_asleep", 0)
        until(engine, "connections_open", 0)


def test_it_keeps_its_place_among_those_of_its_address(backend: str) -> None:
    with serving(backend, Limits(connections_per_address=2)) as engine, ExitStack() as stack:
        clients = [connect(stack, engine) for _ in range(2)]
        until(engine, "connections_asleep", 2)
        assert has_ended(connect(stack, engine))
        clients[0].close()
        until(engine, "connections_open", 1)
        assert ask(connect(stack, engine)).status == 200


@pytest.mark.parametrize("spoke", [False, True])
def test_http2_begins_only_on_a_connection_without_earlier_bytes(backend: str, spoke: bool) -> None:
    with serving(backend) as engine, ExitStack() as stack:
        client = connect(stack, engine)
        if spoke:
            assert ask(client).status == 200
        until(engine, "connections_asleep", 1)
        talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        talk.initiate_connection()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "example.com"), (":path", "/")]
        talk.send_headers(1, fields, end_stream=True)
        client.sendall(talk.data_to_send())
        if spoke:
            assert answer(client).status == 505
            return
        events: list[h2.events.Event] = []
        while not any(isinstance(event, h2.events.StreamEnded) for event in events):
            data = client.recv(65536)
            assert data
            events += talk.receive_data(data)
        heads = [dict(event.headers or []) for event in events if isinstance(event, h2.events.ResponseReceived)]
        assert [head[b":status"] for head in heads] == [b"200"]


def test_the_end_of_the_engine_ends_them(backend: str) -> None:
    with serving(backend) as engine, ExitStack() as stack:
        clients = [connect(stack, engine) for _ in range(50)]
        until(engine, "connections_asleep", 50)
        engine.shut_down()
        assert all(has_ended(client) for client in clients)
        assert engine.process.wait(WITHIN_S) == 0


def test_a_take_over_takes_them_along_and_loses_no_request(backend: str) -> None:
    with serving(backend) as old, ExitStack() as stack:
        clients = [connect(stack, old) for _ in range(50)]
        until(old, "connections_asleep", 50)
        with Engine(HTTP, after=old, workers=1) as new:
            new.serve("*", backend)
            new.configure([Listener(key="http", address="127.0.0.1:0")])
            # They are the old one's still.
            assert ask(clients[0]).status == 200
            clients[1].sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            old.shut_down()
            assert answer(clients[1]).status == 200
            assert old.process.wait(WITHIN_S) == 0
            until(new, "connections_open", 50)
            assert new.counter("connections_inherited_total", 50) == 50
            assert all(ask(client).status == 200 for client in clients)
