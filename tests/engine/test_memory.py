"""Memory is bounded: some clients make the engine hold as much as they can, and the others lose nothing.

Each attack would use a multiple of the limit. Each test asserts four things: the engine was never larger than the limit,
well-behaved clients lost nothing, a slow one that holds little stayed, and the counters show that others were closed.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from sdlb.wire.engine_pb2 import Delta, Limits, Listener, Target, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine import frames
from tests.engine.certificates import Authority
from tests.engine.endpoints import Deaf, Full
from tests.engine.engine import Engine, until
from tests.engine.hungry import PATIENT_S, connect, under_attack

pytestmark = pytest.mark.usefixtures("many_files")

LIMIT_MB = 128
LIMIT = LIMIT_MB << 20
LISTENERS = [
    Listener(key="http", address="127.0.0.1:0"),
    Listener(key="https", address="127.0.0.1:0", tls=True),
]
LIMITS = Limits(memory_mb=LIMIT_MB, head_timeout_ms=60_000, body_timeout_ms=60_000, idle_timeout_ms=60_000)
CHUNK = b"%x\r\n" % 65_536 + bytes(65_536) + b"\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * 100 + b"0\r\n\r\n"


@pytest.fixture
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine(LISTENERS, limits=LIMITS) as engine:
        engine.serve("good.example/*", recorder.endpoint, service="good")
        yield engine


def test_heads_that_stop_before_their_end(engine: Engine) -> None:
    piece = b"GET / HTTP/1.1\r\nHost: good.example\r\nCookie: " + b"a" * 60_000
    with under_attack(engine, LIMIT) as attackers:
        for _ in range(3_000):
            with suppress(OSError):
                connect(engine, attackers).sendall(piece)


def test_answers_that_are_not_read(engine: Engine) -> None:
    with Recorder(lambda _request, _number: LARGE) as large:
        engine.serve("large.example/*", large.endpoint, service="large")
        with under_attack(engine, LIMIT) as attackers:
            for _ in range(900):
                with suppress(OSError):
                    connect(engine, attackers, reads=4096).sendall(b"GET / HTTP/1.1\r\nHost: large.example\r\n\r\n")
            engine.counter("memory_ended_total")


@needs_openssl
def test_answers_that_are_not_read_over_tls(engine: Engine, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("large.example")
    message = ToEngine()
    message.sites.put.add(key="large.example", hosts=["large.example"]).certificates.add(pem=pair.pem)
    assert not engine.sites(message).sites[0].error
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Recorder(lambda _request, _number: LARGE) as large:
        engine.serve("large.example/*", large.endpoint, service="large")
        with under_attack(engine, LIMIT) as attackers:
            for _ in range(600):
                with suppress(OSError):
                    plain = connect(engine, attackers, "https", reads=4096)
                    secured = attackers.enter_context(context.wrap_socket(plain, server_hostname="large.example"))
                    secured.sendall(b"GET / HTTP/1.1\r\nHost: large.example\r\n\r\n")
            engine.counter("memory_ended_total")


def test_answers_that_are_not_read_over_http2(engine: Engine) -> None:
    window = struct.pack(">HI", 4, (1 << 31) - 1)
    with Recorder(lambda _request, _number: LARGE) as large:
        engine.serve("large.example/*", large.endpoint, service="large")
        with under_attack(engine, LIMIT) as attackers:
            for _ in range(12):
                client = attackers.enter_context(frames.Client(engine.address["http"]))
                client.send(frames.frame(frames.SETTINGS, 0, 0, window))
                client.send(frames.frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 65_536)))
                for number in range(64):
                    client.send(client.headers(2 * number + 1, frames.request("large.example")))
            engine.counter("memory_ended_total")


def test_uploads_that_their_endpoint_does_not_take(engine: Engine) -> None:
    with Deaf() as deaf:
        engine.serve("deaf.example/*", deaf.endpoint, service="deaf", protocol=Target.H2C)
        piece = frames.frame(frames.DATA, 0, 1, bytes(16_000))
        with under_attack(engine, LIMIT) as attackers:
            for _ in range(160):
                client = attackers.enter_context(frames.Client(engine.address["http"]))
                # Settings, their acknowledgement, the window: then it may send as much as it does.
                if not all(client.read() for _ in range(3)):
                    continue
                for number in range(16):
                    stream = 2 * number + 1
                    head = client.headers(stream, frames.request("deaf.example", method="POST"), frames.END_HEADERS)
                    client.send(head + (piece[:5] + struct.pack(">I", stream) + piece[9:]) * 4)
            engine.counter("memory_ended_total")


def post_until_told(engine: Engine, attackers: ExitStack, host: bytes) -> None:
    """Thousands of requests with large heads, whose bodies stop; the first of them gets 503 with Retry-After."""
    post = (
        b"POST / HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 60000\r\n"
        b"Cookie: " + b"a" * 40_000 + b"\r\n\r\n" + b"b" * 20_000
    )
    first = connect(engine, attackers)
    first.sendall(post)
    for _ in range(3_000):
        with suppress(OSError):
            connect(engine, attackers).sendall(post)
    told = first.recv(4096)
    assert told.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in told.lower()


def test_requests_that_wait_for_a_version(engine: Engine) -> None:
    delta = Delta()
    route = delta.put_routes.add(pattern="parked.example/*", service="parked")
    route.park.requests_max, route.park.timeout_ms = 100_000, 60_000
    engine.apply(delta)
    small = http.client.HTTPConnection(*engine.address["http"], timeout=PATIENT_S)
    small.request("POST", "/small", body=b"a" * 2_000, headers={"Host": "parked.example"})
    engine.counter("parked_now")
    with under_attack(engine, LIMIT) as attackers:
        post_until_told(engine, attackers, b"parked.example")
    with Recorder() as late:
        engine.serve("parked.example/*", late.endpoint, service="parked")
        assert small.getresponse().read() == b"ok"
        small.close()


def test_requests_whose_endpoint_takes_no_connection(recorder: Recorder) -> None:
    """They end at once, not when connecting is given up."""
    limits = Limits(memory_mb=LIMIT_MB, connect_timeout_ms=120_000, body_timeout_ms=60_000)
    with Full() as full, Engine(LISTENERS, limits=limits) as engine:
        engine.serve("good.example/*", recorder.endpoint, service="good")
        engine.serve("full.example/*", full.endpoint, service="full")
        with under_attack(engine, LIMIT) as attackers:
            post_until_told(engine, attackers, b"full.example")


def test_a_client_that_leaves_before_there_is_a_connection_holds_nothing() -> None:
    with Full() as full, Engine(LISTENERS, limits=Limits(connect_timeout_ms=120_000)) as engine:
        engine.serve("full.example/*", full.endpoint, service="full")
        with socket.create_connection(engine.address["http"]) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: full.example\r\n\r\n")
            engine.counter("requests_total")
        engine.counter("client_gone_total")
        until(lambda: engine.counters["connections_open"] == 0, "it is closed")


def test_the_limit_is_changed_live(engine: Engine) -> None:
    assert engine.counter("memory_limit_bytes") == LIMIT
    engine.configure(LISTENERS, Limits(memory_mb=200))
    until(lambda: engine.counters["memory_limit_bytes"] == 200 << 20, "the limit is the new one")
