"""Clients that make very little progress: a byte now and then must not hold a slot for days.

A connection on which neither side waits for bytes may be slow: long polls, server-sent events, WebSockets, slow endpoints.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from sdlb.wire.engine_pb2 import Limits, Listener
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine
from tests.engine.fixtures import recording
from tests.engine.frames import DATA, END_HEADERS, SETTINGS, WINDOW_UPDATE, Client, frame, request

HTTP = [Listener(key="http", address="127.0.0.1:0", public=True)]
PATIENCE_S = 1.5
LIMITS = Limits(body_timeout_ms=int(PATIENCE_S * 1000), body_bytes_per_s=1000)
POST = b"POST / HTTP/1.1\r\nHost: www.example\r\n"
LONG_S = 3 * PATIENCE_S
"""The duration of a slow exchange that is allowed."""


recorder = recording("module")


@pytest.fixture(scope="module")
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine(HTTP, limits=LIMITS) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


@pytest.fixture
def lost(engine: Engine) -> Iterator[None]:
    """One more client was too slow, and none was silent."""
    slow, silent = (engine.counters.get(name, 0) for name in ("timeout_body_pace_total", "timeout_body_total"))
    yield
    engine.counter("timeout_body_pace_total", slow + 1)
    assert engine.counters.get("timeout_body_total", 0) == silent


# ------------------------------------------------------------------ too slow


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"Content-Length: 100000\r\n\r\n", b"x"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n1;a=", b"b"),
    ],
    ids=["length", "chunks", "extension"],
)
def test_a_body_by_the_byte(engine: Engine, recorder: Recorder, lost: None, head: bytes, piece: bytes) -> None:
    before = len(recorder.completed)
    with socket.create_connection(engine.address["http"]) as client:
        client.sendall(POST + head)
        assert dribble(client, piece).startswith(b"HTTP/1.1 408")
    assert len(recorder.completed) == before


def dribble(client: socket.socket, piece: bytes) -> bytes:
    """Sends a piece every 50 ms until there is an answer."""
    client.settimeout(0.05)
    end = time.monotonic() + 10 * PATIENCE_S
    while time.monotonic() < end:
        client.sendall(piece)
        with contextlib.suppress(TimeoutError):
            return client.recv(65536)
    pytest.fail("it is still waited for")


def test_data_by_the_byte(engine: Engine, lost: None) -> None:
    with Client(engine.address["http"]) as client:
        client.send(client.headers(1, request(method="POST"), END_HEADERS))
        stop = threading.Event()
        feeding = threading.Thread(target=feed, args=(client, frame(DATA, 0, 1, b"x"), stop))
        feeding.start()
        assert client.outcome(1) == "408"
        stop.set()
        feeding.join()


def feed(client: Client, piece: bytes, stop: threading.Event) -> None:
    while not stop.wait(0.05) and client.send(piece):
        pass


def test_windows_by_the_byte(engine: Engine, recorder: Recorder, lost: None) -> None:
    """The stream is broken off; another one of the same connection goes on."""
    recorder.script = lambda _request, _number: b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(5000)
    with Client(engine.address["http"]) as client:
        client.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1)))
        client.send(client.headers(1, request()))
        while len(client.heard.get(1, [])) < 2:
            assert client.read()
            time.sleep(0.02)
            client.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
        assert client.heard[1] == ["200", "reset 2"] and len(client.bodies[1]) < 5000
        recorder.script = None
        client.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)))
        assert client.ask(3, request()) == "200"


@pytest.mark.parametrize("head", [b"Content-Length: 50000000", b"Transfer-Encoding: chunked"], ids=["length", "chunks"])
def test_a_slow_reader(head: bytes) -> None:
    """What the kernel holds goes out in leaps, so here the pace is one of megabytes."""
    size = 50_000_000
    body = bytes(size) if b"Length" in head else b"%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
    limits = Limits(body_timeout_ms=2000, body_bytes_per_s=100_000_000)
    with (
        Recorder(lambda _request, _number: b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body) as recorder,
        Engine(HTTP, limits=limits) as engine,
        socket.socket() as client,
    ):
        engine.serve("*", recorder.endpoint)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        client.settimeout(10)
        client.connect(engine.address["http"])
        client.sendall(b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n")
        got = 0
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(4096):
                got += len(piece)
                time.sleep(0.002)
        assert got < size
        engine.counter("timeout_body_pace_total")
        assert not engine.counters.get("timeout_body_total")


# ------------------------------------------------------------------ slow but allowed


class Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """/poll: nothing, then an answer. /events: a few bytes each quarter of a second."""
        if self.path == "/poll":
            time.sleep(LONG_S)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        end = time.monotonic() + (LONG_S if self.path == "/events" else 0)
        while time.monotonic() < end:
            self.wfile.write(b"9\r\ndata: 1\n\n\r\n")
            time.sleep(0.25)
        self.wfile.write(b"8\r\ndata: .\n\r\n0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Never answers."""


class SlowServer(ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def slow(engine: Engine) -> Iterator[None]:
    with SlowServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine.serve("slow.example/*", f"127.0.0.1:{server.server_address[1]}", version="2.0.0")
        yield
        server.shutdown()


@pytest.mark.parametrize("path", ["/poll", "/events"])
def test_answers_that_take_their_time(engine: Engine, slow: None, path: str) -> None:
    with socket.create_connection(engine.address["http"], timeout=4 * LONG_S) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: slow.example\r\n\r\n".encode())
        got, first = b"", time.monotonic()
        while not got.endswith(b"\r\n0\r\n\r\n"):
            piece = client.recv(65536)
            assert piece, got
            if b"data: 1" in piece and b"data: 1" not in got:
                first = time.monotonic()
            got += piece
    assert got.startswith(b"HTTP/1.1 200")
    # Each event is with the client when it is sent, not when the answer ends.
    assert path == "/poll" or time.monotonic() - first > LONG_S / 2


@pytest.mark.parametrize("path", ["/poll", "/events"])
def test_answers_that_take_their_time_over_http2(engine: Engine, slow: None, path: str) -> None:
    with Client(engine.address["http"]) as client:
        client.patience(4 * LONG_S)
        client.send(client.headers(1, request("slow.example", path)))
        first = 0.0
        while not client.bodies.get(1, b"").endswith(b".\n"):
            assert client.read()
            if not first and client.bodies.get(1):
                first = time.monotonic()
        assert client.heard[1] == ["200"]
        assert path == "/poll" or time.monotonic() - first > LONG_S / 2


def test_an_upload_that_keeps_the_pace(engine: Engine, recorder: Recorder) -> None:
    size, piece = 60, bytes(4000)
    with socket.create_connection(engine.address["http"], timeout=10) as client:
        client.sendall(POST + b"Content-Length: %d\r\n\r\n" % (size * len(piece)))
        for _ in range(size):
            client.sendall(piece)
            time.sleep(LONG_S / size)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert recorder.completed[-1].endswith(piece)


def test_a_websocket_with_few_messages(engine: Engine) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine.serve("ws.example/*", f"127.0.0.1:{server.socket.getsockname()[1]}", version="3.0.0")
        host, port = engine.address["http"]
        with connect("ws://ws.example/", sock=socket.create_connection((host, port))) as client:
            for _ in range(3):
                time.sleep(LONG_S / 3)
                client.send("x")
                assert client.recv(timeout=10) == "x"
        server.shutdown()


def test_a_window_that_opens_at_the_pace(engine: Engine, recorder: Recorder) -> None:
    """The client may read in many pieces what was sent in one."""
    size = 60_000
    recorder.script = lambda _request, _number: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    with Client(engine.address["http"]) as client:
        client.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
        client.send(client.headers(1, request()))
        while len(client.bodies.get(1, b"")) < size:
            before = len(client.bodies.get(1, b""))
            assert client.read() and client.heard.get(1, ["200"]) == ["200"]
            if len(client.bodies.get(1, b"")) > before:
                time.sleep(LONG_S * 1000 / size)
                client.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000)))
    recorder.script = None
