"""Large answers between plain sockets, which are moved inside the kernel: whole, cut short, and what comes behind them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from sdlb.wire.engine_pb2 import Limits, Listener
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine

BODY = os.urandom(1_000_003) * 16  # more than the buffers of two sockets hold
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder(lambda _request, _number: WHOLE) as recorder:
        yield recorder


@pytest.fixture
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine([Listener(key="http", address="127.0.0.1:0")], limits=Limits(body_timeout_ms=700)) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


def answer(connection: socket.socket, pause_s: float = 0.0) -> bytes:
    """One answer's content; what came of it when it is cut short."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1000)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    parts = [body]
    left = len(BODY) - len(body)
    while left > 0:
        time.sleep(pause_s)
        part = connection.recv(min(left, 200_000))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def test_one_behind_the_other_on_one_connection(engine: Engine, recorder: Recorder) -> None:
    with socket.create_connection(engine.address["http"], timeout=10) as connection:
        connection.sendall(GET * 3)
        for _ in range(3):
            assert answer(connection) == BODY
    assert len(recorder.connections) == 1


def test_to_a_slow_client(engine: Engine) -> None:
    with socket.create_connection(engine.address["http"], timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        connection.sendall(GET)
        assert answer(connection, 0.002) == BODY


def test_a_client_that_stops_reading_is_let_go(engine: Engine) -> None:
    with socket.create_connection(engine.address["http"], timeout=10) as connection:
        connection.sendall(GET)
        connection.recv(10)
        engine.counter("timeout_body_total")


def test_a_client_that_leaves(engine: Engine, recorder: Recorder) -> None:
    for _ in range(20):
        with socket.create_connection(engine.address["http"], timeout=10) as connection:
            connection.sendall(GET)
            connection.recv(100_000)
    engine.counter("client_gone_total", 20)
    with socket.create_connection(engine.address["http"], timeout=10) as connection:
        connection.sendall(GET)
        assert answer(connection) == BODY


def test_an_answer_that_is_cut_short_is_not_taken_for_whole(engine: Engine, recorder: Recorder) -> None:
    recorder.script = lambda _request, _number: WHOLE[:1_000_000]
    with socket.create_connection(engine.address["http"], timeout=10) as connection:
        connection.sendall(GET)
        time.sleep(0.2)
        for upstream in recorder.sockets:
            upstream.shutdown(socket.SHUT_RDWR)
        got = answer(connection)
        assert len(got) < len(BODY) and BODY.startswith(got)
        assert connection.recv(10) == b""


def test_bytes_beyond_the_announced_length_reach_no_client(engine: Engine, recorder: Recorder) -> None:
    recorder.script = lambda _request, _number: WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    with socket.create_connection(engine.address["http"], timeout=10) as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert answer(connection) == BODY
            time.sleep(0.05)
    engine.counter("upstream_unsolicited_total")
    assert len(recorder.connections) == 3
