"""HTTP/2 towards clients: curl, nghttp2 and hyper-h2 as the clients, and clients that attack."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlb.node.audit.attack_rows import HTTP2_HEADS
from sdlb.wire.engine_pb2 import Limits, Listener
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine, until
from tests.engine.fixtures import recording
from tests.engine.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Client,
    Field,
    frame,
    request,
)

CALM = "goaway 11"
LISTENER = Listener(key="http", address="127.0.0.1:0", public=True)
LIMITS = Limits(body_timeout_ms=1500, idle_timeout_ms=1500, head_timeout_ms=1500, head_bytes=16384)


recorder = recording("module")


@pytest.fixture(scope="module")
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine([LISTENER], limits=LIMITS) as engine:
        engine.serve("www.example/*", recorder.endpoint)
        engine.serve("*", recorder.endpoint)
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address["http"]) as client:
        yield client


@pytest.fixture(autouse=True)
def unharmed(engine: Engine, recorder: Recorder) -> Iterator[None]:
    """Whatever a client does, another one that was there before is served on."""
    with Client(engine.address["http"]) as other:
        assert other.ask(1, request()) == "200"
        yield
        recorder.script = None
        assert engine.is_alive()
        assert other.ask(3, request()) in ("200", "goaway 0")  # GOAWAY: it sent no request for too long
    assert engine.counters.get("faults_total", 0) == 0


def url(engine: Engine, path: str = "/") -> str:
    host, port = engine.address["http"]
    return f"http://{host}:{port}{path}"


# ------------------------------------------------------------------ other people's clients


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_sends_and_gets_large_bodies(engine: Engine, recorder: Recorder, tmp_path: Path) -> None:
    body = bytes(range(256)) * 12_000
    recorder.script = lambda request, _number: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)
        + request.split(b"\r\n\r\n", 1)[1]
        + b"\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(body)
    done = subprocess.run(
        ["curl", "-sS", "--http2-prior-knowledge", "--data-binary", f"@{sent}", "-o", str(got), "-D", "-", url(engine)],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert got.read_bytes() == body
    assert "x-sum: 7" in done.stdout
    assert b"via: 2.0 edge-1-" in recorder.completed[-1]


@pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load")
def test_h2load_loses_nothing(engine: Engine) -> None:
    done = subprocess.run(
        ["h2load", "-n", "4000", "-c", "8", "-m", "32", url(engine)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "4000 succeeded, 0 failed, 0 errored" in done.stdout


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="needs nghttp")
def test_nghttp_sees_the_settings(engine: Engine) -> None:
    done = subprocess.run(["nghttp", "-v", url(engine)], capture_output=True, text=True, timeout=20, check=True)
    assert "SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1" in done.stdout
    assert "SETTINGS_MAX_CONCURRENT_STREAMS(0x03):128" in done.stdout


def test_cookies_in_crumbs_are_one_field(client: Client, recorder: Recorder) -> None:
    assert client.ask(1, [*request(), ("cookie", "a=1"), ("cookie", "b=2")]) == "200"
    assert b"\r\ncookie: a=1; b=2\r\n" in recorder.completed[-1]


def test_an_answer_to_head_and_one_without_content_have_none(client: Client, recorder: Recorder) -> None:
    recorder.script = lambda _request, _number: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert client.ask(1, request(method="HEAD")) == "200"
    recorder.script = lambda _request, _number: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"
    assert client.ask(3, request()) == "304"
    assert not any(client.bodies.values())


def test_own_answers_are_streams_too(client: Client) -> None:
    assert client.ask(1, request(path="/a/%2e%2e/%2f")) == "400"
    assert client.ask(3, [*request(method="CONNECT")[:1], (":authority", "a:1")]) == "405"
    assert client.ask(5, [*request(), *[(f"x-{n}", "y") for n in range(200)]]) == "431"
    # and the connection goes on
    assert client.ask(7, request()) == "200"


# ------------------------------------------------------------------ messages that are malformed


MALFORMED = {
    **HTTP2_HEADS,
    "two host fields": [*request(), ("host", "www.example"), ("host", "www.example ")],
    "empty method": request(method=""),
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_malformed_heads_are_never_forwarded(client: Client, recorder: Recorder, fields: list[Field]) -> None:
    before = len(recorder.completed)
    assert client.ask(1, fields) in ("reset 1", "400", "goaway 1")
    assert len(recorder.completed) == before


@pytest.mark.parametrize(("told", "sent"), [("3", b"four"), ("5", b"four"), ("0", b"x")])
def test_content_that_does_not_match_its_length(client: Client, recorder: Recorder, told: str, sent: bytes) -> None:
    before = len(recorder.completed)
    assert client.ask(1, [*request(method="POST"), ("content-length", told)], sent) in ("reset 1", "400", "200")
    for head in recorder.completed[before:]:
        # All that an endpoint may have seen is what was announced, of content that was sent.
        assert head.endswith(b"\r\n\r\n" + sent[: int(told)])


@pytest.mark.parametrize("told", ["+4", "4,4", " 4", "0x4", "-1", "99999999999999999999"])
def test_odd_lengths(client: Client, recorder: Recorder, told: str) -> None:
    before = len(recorder.completed)
    assert client.ask(1, [*request(method="POST"), ("content-length", told)], b"four") in ("reset 1", "400")
    assert len(recorder.completed) == before


# ------------------------------------------------------------------ floods


def flood(engine: Engine, counter: str, client: Client, many: bytes, times: int = 200) -> None:
    before = engine.counters.get(counter, 0)
    for _ in range(times):
        if not client.send(many):
            break
    assert client.end() in (CALM, "closed")
    engine.counter(counter, before + 1)


def test_ping_flood(engine: Engine, client: Client) -> None:
    flood(engine, "http2_flood_ping_total", client, frame(PING, 0, 0, bytes(8)) * 100)


def test_settings_flood(engine: Engine, client: Client) -> None:
    flood(engine, "http2_flood_settings_total", client, frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 10)


def test_table_size_flapping(engine: Engine, client: Client) -> None:
    both = b"".join(frame(SETTINGS, 0, 0, struct.pack(">HI", 1, size)) for size in (0, 65536))
    flood(engine, "http2_flood_settings_total", client, both * 10)


def test_priority_flood(engine: Engine, client: Client) -> None:
    flood(engine, "http2_flood_priority_total", client, frame(PRIORITY, 0, 1, bytes([0, 0, 0, 3, 1])) * 100)


def test_window_update_flood(engine: Engine, client: Client) -> None:
    client.send(client.headers(1, request(method="POST"), END_HEADERS))
    one = struct.pack(">I", 1)
    flood(engine, "http2_flood_window_update_total", client, frame(WINDOW_UPDATE, 0, 1, one) * 2000)


def test_empty_data_flood(engine: Engine, client: Client) -> None:
    client.send(client.headers(1, request(method="POST"), END_HEADERS))
    before = sum(engine.counters.get(name, 0) for name in ("http2_flood_empty_data_total", "http2_flood_other_total"))
    for _ in range(100):
        if not client.send(frame(DATA, 0, 1) * 100):
            break
    assert client.end() in (CALM, "closed")
    end = time.monotonic() + 5
    names = ("http2_flood_empty_data_total", "http2_flood_other_total")
    while sum(engine.counters.get(name, 0) for name in names) == before:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("padding", [0, 200])
def test_data_of_nothing_but_padding(engine: Engine, client: Client, padding: int) -> None:
    client.send(client.headers(1, request(method="POST"), END_HEADERS))
    counted = ended(engine)
    padded = frame(DATA, 8, 1, bytes([padding]) + bytes(padding))
    for _ in range(100):
        if not client.send(padded * 100):
            break
    assert client.end() in (CALM, "goaway 3", "closed")
    until_ended(engine, counted)


def test_empty_headers_flood(engine: Engine, client: Client) -> None:
    """Heads without a field: each stream is reset, and the number of them closes the connection."""
    counted = ended(engine)
    for first in range(1, 4001, 200):
        if not client.send(
            b"".join(frame(HEADERS, END_STREAM | END_HEADERS, at) for at in range(first, first + 200, 2))
        ):
            break
    assert client.end() in (CALM, "goaway 1", "closed")
    until_ended(engine, counted)


def test_empty_continuation_flood(engine: Engine, client: Client) -> None:
    counted = ended(engine)
    client.send(frame(HEADERS, END_STREAM, 1, client.block(request())))
    for _ in range(100):
        if not client.send(frame(CONTINUATION, 0, 1) * 100):
            break
    assert client.end() in (CALM, "goaway 1", "closed")
    until_ended(engine, counted)


def test_small_data_flood(engine: Engine) -> None:
    """A byte a frame, to an endpoint that reads none: what is kept for each is bounded."""
    with socket.create_server(("127.0.0.1", 0)) as deaf, Client(engine.address["http"]) as client:
        engine.serve("deaf.example/*", f"127.0.0.1:{deaf.getsockname()[1]}", version="2.0.0")
        before = resident_kb(engine)
        for stream in range(1, 129, 2):
            client.send(client.headers(stream, request("deaf.example", method="POST"), END_HEADERS))
        for _ in range(150):
            if not client.send(b"".join(frame(DATA, 0, stream, b"x") * 6 for stream in range(1, 129, 2))):
                break
        assert client.outcome(1) in (CALM, "408", "504", "closed")
        assert resident_kb(engine) - before < 20_000


def test_rapid_reset(engine: Engine, client: Client) -> None:
    """CVE-2023-44487."""
    for first in range(1, 4001, 200):
        some = b"".join(
            client.headers(stream, request()) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            for stream in range(first, first + 200, 2)
        )
        if not client.send(some):
            break
    assert client.end() in (CALM, "closed")
    flooded = ("http2_flood_reset_total", "http2_flood_other_total")
    end = time.monotonic() + 5
    while not any(engine.counters.get(name) for name in flooded):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_deadlines_are_no_rapid_reset(engine: Engine, recorder: Recorder, client: Client) -> None:
    """Each call is given up after a while: more in a few seconds than an attack needs."""

    def slow(_request: bytes, _number: int) -> bytes | None:
        time.sleep(1)
        return None

    recorder.script = slow
    for first in range(1, 601, 200):
        streams = range(first, first + 200, 2)
        before = len(recorder.completed)
        client.send(b"".join(client.headers(stream, request()) for stream in streams))
        until(lambda before=before: len(recorder.completed) - before >= 100)
        time.sleep(0.15)
        client.send(b"".join(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)) for stream in streams))
    recorder.script = None
    assert client.ask(601, request()) == "200"


def test_made_you_reset(engine: Engine, client: Client) -> None:
    """CVE-2025-8671: each stream is made one that the server must reset, by a window update of nothing."""
    before = ended(engine)
    for first in range(1, 8001, 200):
        some = b"".join(
            client.headers(stream, request()) + frame(WINDOW_UPDATE, 0, stream, bytes(4))
            for stream in range(first, first + 200, 2)
        )
        if not client.send(some):
            break
    assert client.end() in (CALM, "goaway 1", "closed")
    until_ended(engine, before)


def test_continuation_flood(engine: Engine, client: Client) -> None:
    """CVE-2024-27316: a head without end."""
    before = ended(engine)
    piece = client.block([("x", "y" * 1000)])
    client.send(frame(HEADERS, END_STREAM, 1, client.block(request())))
    for _ in range(2000):
        if not client.send(frame(CONTINUATION, 0, 1, piece)):
            break
    assert client.end() in (CALM, "goaway 1", "closed")
    until_ended(engine, before)


def ended(engine: Engine) -> int:
    """HTTP/2 connections that ended by the client's fault, whatever it was counted as."""
    names = (
        "http2_flood_reset_total",
        "http2_flood_continuation_total",
        "http2_flood_empty_data_total",
        "http2_flood_other_total",
        "http2_failed_total",
    )
    return sum(engine.counters.get(name, 0) for name in names)


def until_ended(engine: Engine, before: int) -> None:
    end = time.monotonic() + 5
    while ended(engine) == before:
        assert time.monotonic() < end, dict(engine.counters)
        time.sleep(0.05)


def test_hpack_bomb(client: Client, engine: Engine) -> None:
    """One large field in the dynamic table, and thousands of references to it."""
    large = b"\x40" + b"\x01x" + b"\x7f\x81\x1e" + b"y" * 4000  # literal with indexing, a value of 4,000 bytes
    before, counted = resident_kb(engine), ended(engine)
    for stream in range(1, 41, 2):
        client.send(
            frame(HEADERS, END_STREAM | END_HEADERS, stream, client.block(request()) + large + b"\xbe" * 12_000)
        )
    outcome = client.outcome(1)
    assert outcome in ("431", "reset 1", "goaway 9", "goaway 1", CALM), outcome
    assert resident_kb(engine) - before < 20_000
    until_ended(engine, counted)


def resident_kb(engine: Engine) -> int:
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


# ------------------------------------------------------------------ slowness


def test_a_window_that_is_held_shut(engine: Engine, recorder: Recorder, client: Client) -> None:
    """The content waits for its client no longer than any other, and its stream is reset."""
    recorder.script = lambda _request, _number: b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000)
    client.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    client.send(client.headers(1, request()))
    while len(client.heard.get(1, [])) < 2:
        assert client.read()
    assert client.heard[1] == ["200", "reset 2"] and not client.bodies.get(1)
    engine.counter("timeout_body_total")


def test_the_window_of_the_connection_held_shut(engine: Engine, recorder: Recorder, client: Client) -> None:
    """The streams' own windows are wide open."""
    recorder.script = lambda _request, _number: b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000)
    client.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)))
    for stream in (1, 3, 5):
        client.send(client.headers(stream, request()))
    while any(len(client.heard.get(stream, [])) < 2 for stream in (1, 3, 5)):
        assert client.read()
    assert all(client.heard[stream] == ["200", "reset 2"] for stream in (1, 3, 5))
    assert sum(len(body) for body in client.bodies.values()) <= 65_535
    engine.counter("timeout_body_total", 3)


def test_windows_of_one_byte(recorder: Recorder, client: Client) -> None:
    recorder.script = lambda _request, _number: b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + b"z" * 50
    client.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1)))
    client.send(client.headers(1, request()))
    while len(client.bodies.get(1, b"")) < 50:
        assert client.read()
        client.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
    assert client.bodies[1] == b"z" * 50


def test_a_body_that_does_not_come(client: Client) -> None:
    assert client.ask(1, request()) == "200"
    client.send(client.headers(3, [*request(method="POST"), ("content-length", "10")], END_HEADERS))
    client.send(frame(DATA, 0, 3, b"12345"))
    assert client.outcome(3) == "408"


def test_a_connection_without_requests_gets_goaway(engine: Engine, client: Client) -> None:
    assert client.ask(1, request()) == "200"
    assert client.end() == "goaway 0"
    engine.counter("timeout_idle_total")


def test_a_preface_that_does_not_go_on(engine: Engine) -> None:
    with socket.create_connection(engine.address["http"], timeout=20) as connection:
        connection.sendall(PREFACE + frame(DATA, 0, 1, b"no SETTINGS"))
        while connection.recv(1000):
            pass
    engine.counter("http2_failed_total")
    with socket.create_connection(engine.address["http"], timeout=20) as connection:
        connection.sendall(PREFACE[:-1])
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    engine.counter("timeout_head_total")


def test_a_client_that_cancels_frees_the_endpoint(recorder: Recorder, client: Client) -> None:
    begun, closed = threading.Event(), recorder.closed

    def hold(request: bytes, number: int) -> bytes | None:
        begun.set()
        time.sleep(0.5)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    recorder.script = hold
    client.send(client.headers(1, request()))
    assert begun.wait(5)
    client.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))
    end = time.monotonic() + 5
    while recorder.closed == closed:
        assert time.monotonic() < end
        time.sleep(0.02)
