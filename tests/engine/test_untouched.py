"""What is passed on is what came, and what is written down is escaped: content, expectations, lines of the log."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator

import pytest

from sdlb.wire.engine_pb2 import Limits, Listener
from tests.compliance.recorder import OK, Recorder
from tests.engine.engine import Engine
from tests.engine.fixtures import recording
from tests.engine.frames import Client, request

HEAD = b" HTTP/1.1\r\nHost: www.example\r\n"
BOMB = gzip.compress(bytes(20_000_000))


recorder = recording("module")


@pytest.fixture(scope="module")
def engine(recorder: Recorder) -> Iterator[Engine]:
    listeners = [
        Listener(key="http", address="127.0.0.1:0", public=True),
        Listener(key="inner", address="127.0.0.1:0"),
    ]
    with Engine(listeners, limits=Limits(body_bytes=100_000)) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


@pytest.fixture(autouse=True)
def as_before(recorder: Recorder) -> Iterator[None]:
    yield
    recorder.script = None


def say(engine: Engine, raw: bytes, key: str = "http", quiet_s: float = 1.0) -> bytes:
    """Everything that comes until it is closed, or nothing more does."""
    with socket.create_connection(engine.address[key], timeout=quiet_s) as client:
        client.sendall(raw)
        got = b""
        try:
            while piece := client.recv(65536):
                got += piece
        except (TimeoutError, ConnectionError):
            pass
        return got


# ------------------------------------------------------------------ content


def test_nothing_is_ever_unpacked(engine: Engine, recorder: Recorder) -> None:
    """20 MB in 20 KB: within the limit on bodies, for it is what comes that counts; both ways, over both protocols."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
    recorder.script = lambda _request, _number: answer
    head = b"POST /" + HEAD + b"Connection: close\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
    got = say(engine, head + BOMB)
    assert recorder.completed[-1].endswith(b"\r\n\r\n" + BOMB) and got.endswith(b"\r\n\r\n" + BOMB)
    assert b"content-encoding: gzip\r\n" in recorder.completed[-1].lower()
    with Client(engine.address["http"]) as client:
        client.ask(1, [*request(method="POST"), ("content-encoding", "gzip")], BOMB[:16_000])
        while len(client.bodies.get(1, b"")) < len(BOMB):
            assert client.read()
        assert client.bodies[1] == BOMB
    assert BOMB[:16_000] in recorder.received


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip", b"deflate", b"x, chunked"])
def test_transfer_codings_are_refused(engine: Engine, recorder: Recorder, coding: bytes) -> None:
    before = len(recorder.completed)
    got = say(engine, b"POST /" + HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n")
    assert got.startswith((b"HTTP/1.1 501", b"HTTP/1.1 400")) and len(recorder.completed) == before


# ------------------------------------------------------------------ fields that are ours to set


FORGED = b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nx_real_ip: 6.6.6.6\r\nConnection: close, via\r\n\r\n"


def test_a_request_with_forged_fields_is_counted_once(engine: Engine, recorder: Recorder) -> None:
    """However many they are, and however often it is tried; over both protocols, and no other request."""
    recorder.script = lambda _request, number: None if number else OK  # what comes on a kept connection is tried again
    engine.serve("mine.example/*", recorder.endpoint, version="3.0.0")
    before = engine.counters.get("forged_fields_total", 0)
    head = b" HTTP/1.1\r\nHost: mine.example\r\n"
    for number in range(20):
        assert say(engine, b"GET /mine" + head + FORGED).startswith(b"HTTP/1.1 200")
        say(engine, b"GET /plain-%d" % number + head + b"Connection: close, x-mine\r\nVia: 1.1 a\r\n\r\n")
    engine.counter("retries_total")
    with Client(engine.address["http"]) as client:
        assert client.ask(1, [*request(), ("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6")]) == "200"
        assert client.ask(3, request()) == "200"
    assert engine.counter("forged_fields_total", before + 21) == before + 21
    assert b"6.6.6.6" not in recorder.received


def test_what_comes_behind_a_last_request_is_counted_once(engine: Engine) -> None:
    """At once, or a little later; but not what is still to come of a request that was refused."""
    before = engine.counters.get("behind_last_request_total", 0)
    last = b"POST /last" + HEAD + b"Connection: close\r\nContent-Length: 4\r\n\r\nbody"
    assert say(engine, last).startswith(b"HTTP/1.1 200")
    assert say(engine, last + SMUGGLED * 3).count(b"HTTP/1.1 200") == 1
    with socket.create_connection(engine.address["http"], timeout=2) as client:
        client.sendall(last)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(SMUGGLED)
    assert say(engine, b"bad" + last + SMUGGLED).startswith(b"HTTP/1.1 4")
    assert engine.counter("behind_last_request_total", before + 2) == before + 2


# ------------------------------------------------------------------ expectations


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: www.example\r\n\r\n"


@pytest.mark.parametrize(
    "expect", [b"100-continue, x", b"y 100-continue", b"100-continue\r\nExpect: x", b"x", b"", b"100-continue;q=1"]
)
def test_odd_expectations_are_refused_and_nothing_behind_them_is_served(
    engine: Engine, recorder: Recorder, expect: bytes
) -> None:
    before = len(recorder.completed)
    head = b"POST /" + HEAD + b"Content-Length: %d\r\nExpect: " % len(SMUGGLED) + expect + b"\r\n\r\n"
    assert say(engine, head + SMUGGLED).startswith((b"HTTP/1.1 417", b"HTTP/1.1 400"))
    assert len(recorder.completed) == before


def test_a_refused_body_is_not_parsed_as_a_request(engine: Engine, recorder: Recorder) -> None:
    """The endpoint answers without having wanted the body; what its client sends then is not treated as a request
    (0.CL)."""
    before = len(recorder.completed)
    with Recorder() as strict, socket.create_connection(engine.address["http"], timeout=2) as client:
        engine.serve("strict.example/*", strict.endpoint, version="2.0.0")
        head = b"POST / HTTP/1.1\r\nHost: strict.example\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head % len(SMUGGLED))
        end = time.monotonic() + 5
        while b"Expect: 100-continue" not in strict.received and b"expect: 100-continue" not in strict.received:
            assert time.monotonic() < end
            time.sleep(0.01)
        strict.sockets[0].sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 403")
        got = b""
        try:
            client.sendall(SMUGGLED * 2)
            while piece := client.recv(65536):
                got += piece
        except (TimeoutError, ConnectionError):
            pass
        assert b"HTTP/1.1" not in got
        assert b"/smuggled" not in strict.received and len(recorder.completed) == before
    engine.counter("early_answers_total")


# ------------------------------------------------------------------ the log


TARGETS = [
    b"/%0d%0aX:%20y",
    b"/a%0a{%22status%22:200}",
    b'/"},{"forged":"1',
    b"/\\u000a",
    b"/%1b[2J%1b]0;x%07",
    b"/?\\\"'<script>",
    b"/%e2%80%a8%c2%85",
    b"/%ff%fe",
]


@pytest.mark.parametrize("key", ["http", "inner"])
def test_no_line_of_the_log_can_be_forged(engine: Engine, recorder: Recorder, key: str) -> None:
    for number, target in enumerate(TARGETS):
        fields = b'X-Request-Id: "},{"forged":%d\r\nReferer: \xff\x80\r\nConnection: close\r\n\r\n' % number
        say(engine, b"GET " + target + HEAD + fields, key)
        say(engine, b"A'b*|~%d " % number + target + HEAD + b"Connection: close\r\n\r\n", key)
    say(engine, b"GET /the-last-of-" + key.encode() + HEAD + b"Connection: close\r\n\r\n", key)
    end = time.monotonic() + 10
    while (b"/the-last-of-" + key.encode()) not in (raw := engine.access_log.read_bytes()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in raw)
    lines = [json.loads(line) for line in raw.splitlines()]
    assert {line["listener"] for line in lines} <= {"http", "inner"} and all("forged" not in line for line in lines)
    # What an endpoint got is one request for each line; what was refused before it was a request has none.
    heads = [bytes(head) for head in recorder.completed]
    assert not any(
        b"\r\nX: y" in head or b"forged" in head.split(b"\r\n\r\n")[0].split(b"\r\n", 1)[1] for head in heads
    )


def test_what_comes_back_cannot_split_an_answer_of_ours(engine: Engine) -> None:
    for target in TARGETS:
        got = say(engine, b"GET " + target + b" HTTP/1.1\r\nHost: nobody.example:1\r\nConnection: close\r\n\r\n")
        head = got.split(b"\r\n\r\n")[0]
        assert got.count(b"HTTP/1.1 ") == 1 and b"\r\nX: y" not in head and b"<script>" not in got
