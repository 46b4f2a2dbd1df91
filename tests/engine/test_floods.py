"""More than an engine can take: connections without end, handshakes that do not end, requests of one address.

Loopback has many addresses: `OTHER` is one that does not attack.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sdlb.wire.engine_pb2 import Limits, Listener, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import OK, Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine, until
from tests.engine.frames import Client, request

OTHER = "127.0.0.2"
GET = b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n"
STAMPED = b"GET / HTTP/1.1\r\nHost: www.example\r\nsdlb-to: web/1.0.0 *\r\n\r\n"


def dial(address: tuple[str, int], source: str = "", timeout_s: float = 10) -> socket.socket:
    return socket.create_connection(address, timeout=timeout_s, source_address=(source, 0))


def ask(connection: socket.socket, what: bytes = GET) -> bytes:
    """The head of the answer; b"": it was closed."""
    got = b""
    with contextlib.suppress(ConnectionError):
        connection.sendall(what)
        while b"\r\n\r\n" not in got and (piece := connection.recv(65536)):
            got += piece
    return got.split(b"\r\n\r\n")[0]


# ------------------------------------------------------------------ file descriptors


DESCRIPTORS = 160
FLOOD = 200
PLAIN = [
    Listener(key="http", address="127.0.0.1:0"),
    Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE),
]


def test_without_descriptors_clients_wait_and_nodes_get_through(recorder: Recorder) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(PLAIN, descriptors=DESCRIPTORS))
        engine.serve("*", recorder.endpoint)
        before = stack.enter_context(dial(engine.address["http"]))
        assert ask(before).startswith(b"HTTP/1.1 200")
        # None of them is idle: each has begun a request, so none can be closed to free a descriptor.
        flood = [stack.enter_context(dial(engine.address["http"])) for _ in range(FLOOD)]
        for connection in flood:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: www.example\r\n")
        engine.counter("limit_descriptors_total")

        began, since = burnt(engine), time.monotonic()
        for _ in range(3):
            with dial(engine.address["node"]) as parent:
                assert ask(parent, STAMPED).startswith(b"HTTP/1.1 200")
        with Recorder() as another:  # control gets through as well
            engine.serve("new.example/*", another.endpoint, version="2.0.0")
        assert open_descriptors(engine) < DESCRIPTORS
        time.sleep(1)
        assert burnt(engine) - began < (time.monotonic() - since) / 2, "it waits, and does not spin"
        assert engine.counters.get("accept_failures_total", 0) == 0

        for connection in flood:
            connection.close()
        with dial(engine.address["http"]) as after:
            assert ask(after).startswith(b"HTTP/1.1 200")


def test_without_descriptors_for_upstreams_clients_get_503_with_retry_after() -> None:
    may = threading.Event()
    with (
        Recorder(lambda _request, _number: OK if may.wait(10) else None) as held,
        Engine(PLAIN, descriptors=DESCRIPTORS) as engine,
        ExitStack() as stack,
    ):
        engine.serve("*", held.endpoint)
        without = open_descriptors(engine)
        clients = [stack.enter_context(dial(engine.address["http"])) for _ in range(90)]
        # Requests that come while it still accepts would stop the accepting before an upstream lacks a descriptor.
        until(lambda: open_descriptors(engine) >= without + len(clients))
        for client in clients:
            client.sendall(GET)
        engine.counter("exhausted_total")
        may.set()
        heads = [ask(client, b"") for client in clients]
        assert {head[9:12] for head in heads} == {b"200", b"503"}
        assert all(b"\r\nretry-after: 1\r\n" in head for head in heads if b" 503 " in head)
        with dial(engine.address["http"]) as after:
            assert ask(after).startswith(b"HTTP/1.1 200")


def open_descriptors(engine: Engine) -> int:
    return len(list(Path(f"/proc/{engine.process.pid}/fd").iterdir()))


def burnt(engine: Engine) -> float:
    """Seconds of CPU."""
    fields = Path(f"/proc/{engine.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_when_accepting_fails_it_pauses_and_goes_on(recorder: Recorder) -> None:
    """Less than there are now: not even the reserve is left."""
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(PLAIN))
        engine.serve("*", recorder.endpoint)
        limits = resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
        waiting = [stack.enter_context(dial(engine.address["http"])) for _ in range(20)]
        engine.counter("accept_failures_total")
        began, since = burnt(engine), time.monotonic()
        time.sleep(1.5)
        assert burnt(engine) - began < (time.monotonic() - since) / 2, "it waits, and does not spin"
        resource.prlimit(engine.process.pid, resource.RLIMIT_NOFILE, limits)
        for connection in waiting:
            assert ask(connection).startswith(b"HTTP/1.1 200")


# ------------------------------------------------------------------ connections of one address


def test_one_address_has_its_connections_and_another_its_own(recorder: Recorder) -> None:
    listeners = [Listener(key="http", address="127.0.0.1:0", public=True)]
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(listeners, limits=Limits(connections_per_address=4)))
        engine.serve("*", recorder.endpoint)
        held = [stack.enter_context(dial(engine.address["http"])) for _ in range(4)]
        assert all(ask(connection).startswith(b"HTTP/1.1 200") for connection in held)
        with dial(engine.address["http"]) as fifth:
            assert ask(fifth) == b""
        engine.counter("limit_connections_per_address_total")
        with dial(engine.address["http"], OTHER) as other:
            assert ask(other).startswith(b"HTTP/1.1 200")


# ------------------------------------------------------------------ requests of one address


@pytest.fixture
def limited(recorder: Recorder) -> Iterator[Engine]:
    """Six hundred at once, then one a second."""
    listeners = [Listener(key="http", address="127.0.0.1:0", public=True), PLAIN[1]]
    limits = Limits(requests_per_s_per_address=1, requests_burst_per_address=600)
    with Engine(listeners, limits=limits) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


def test_too_many_requests_of_one_address(recorder: Recorder, limited: Engine) -> None:
    statuses: list[bytes] = []
    with dial(limited.address["http"]) as client:
        while b"429" not in statuses and len(statuses) < 2_000:
            head = ask(client)
            statuses.append(head[9:12])
        assert 600 <= len(statuses) < 700
        assert b"\r\nretry-after: 1\r\n" in head and b"error=http_request_denied" in head
        assert b"connection: close" not in head, "who is told to wait keeps its connection"
    assert len(recorder.completed) == len(statuses) - 1, "what is refused is forwarded to nobody"
    limited.counter("limit_requests_per_address_total")
    # On another connection and over HTTP/2 as well; another address has its own.
    with Client(limited.address["http"]) as client:
        assert "429" in [client.ask(stream, request()) for stream in range(1, 40, 2)]
        assert client.heard.get(0) is None
    with Client(limited.address["http"], OTHER) as other:
        assert other.ask(1, request()) == "200"
    # Nodes have many clients each.
    with dial(limited.address["node"]) as parent:
        assert all(ask(parent, STAMPED).startswith(b"HTTP/1.1 200") for _ in range(50))


# ------------------------------------------------------------------ TLS handshakes


HTTPS = [Listener(key="https", address="127.0.0.1:0", tls=True, public=True)]
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""The beginning of a ClientHello."""


@contextlib.contextmanager
def secured(authority: Authority, recorder: Recorder, limits: Limits) -> Iterator[Engine]:
    with Engine(HTTPS, limits=limits) as engine:
        engine.serve("*", recorder.endpoint)
        message = ToEngine()
        message.sites.put.add(key="a", hosts=["www.example"]).certificates.add(pem=authority.issue("www.example").pem)
        assert not engine.sites(message).sites[0].error
        yield engine


def shake(engine: Engine, authority: Authority, source: str = "") -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(authority.root.certificate))
    return context.wrap_socket(dial(engine.address["https"], source), server_hostname="www.example")


@needs_openssl
def test_handshakes_that_do_not_go_on(authority: Authority, recorder: Recorder) -> None:
    """One address gets only its share. When all shares are used, new connections are closed; open ones are served."""
    limits = Limits(handshakes=16, handshake_timeout_ms=60_000)
    with secured(authority, recorder, limits) as engine, ExitStack() as stack:
        before = stack.enter_context(shake(engine, authority))
        for number in range(40):
            stack.enter_context(dial(engine.address["https"])).sendall(HELLO[: number % len(HELLO)])
        engine.counter("limit_handshakes_per_address_total", 36)
        assert ask(before).startswith(b"HTTP/1.1 200")
        with shake(engine, authority, OTHER) as other:
            assert ask(other).startswith(b"HTTP/1.1 200")
        # Three more addresses: now there is no capacity for any handshake.
        for number in range(4, 7):
            for _ in range(4):
                stack.enter_context(dial(engine.address["https"], f"127.0.0.{number}")).sendall(HELLO)
        engine.counter("handshakes_now", 16)
        with pytest.raises((ConnectionError, ssl.SSLEOFError)), shake(engine, authority, OTHER):
            pass
        engine.counter("limit_handshakes_total")
        assert ask(before).startswith(b"HTTP/1.1 200")
    assert not recorder.owing


@needs_openssl
def test_a_hello_without_end(authority: Authority, recorder: Recorder) -> None:
    """In records of one byte, and a megabyte of it: bounded in size and time, and cheap."""
    limits = Limits(handshake_timeout_ms=2_000)
    with secured(authority, recorder, limits) as engine:
        record = b"\x16\x03\x01\x00\x01"
        with dial(engine.address["https"]) as client:
            client.sendall(record + b"\x01" + record + b"\x00" + record + b"\x10" + record + b"\x00")
            with contextlib.suppress(OSError):
                for _ in range(200):
                    client.sendall(record + b"x")
                    time.sleep(0.02)
            assert not client.recv(100).startswith(b"\x16"), "no answer to a hello that is not whole"
        engine.counter("timeout_handshake_total")
        piece = b"\x16\x03\x01\x40\x00" + bytes(16_384)
        with dial(engine.address["https"]) as client:
            client.sendall(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff")  # 16 MiB are to come
            sent = 0
            with contextlib.suppress(OSError):
                for _ in range(64):
                    client.sendall(piece)
                    sent += len(piece)
                while client.recv(100):
                    pass
        engine.counter("handshakes_failed_total")
        with shake(engine, authority) as client:
            assert ask(client).startswith(b"HTTP/1.1 200")


@needs_openssl
def test_names_that_are_none(authority: Authority, recorder: Recorder) -> None:
    """An invalid host name ends the handshake; no part of it gets into a log line or a header."""
    with secured(authority, recorder, Limits()) as engine:
        context = ssl.create_default_context(cafile=str(authority.root.certificate))
        for forged in (b"www.ex\r\nx:y", b"www.ex\0ample", b"www.ex\nmple"):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = context.wrap_bio(incoming, outgoing, server_hostname="w" * len(forged))
            with contextlib.suppress(ssl.SSLWantReadError):
                session.do_handshake()
            hello = outgoing.read()
            assert hello.count(b"w" * len(forged)) == 1
            with dial(engine.address["https"]) as client:
                client.sendall(hello.replace(b"w" * len(forged), forged))
                assert not client.recv(100).startswith(b"\x16")
        with shake(engine, authority) as client:
            assert ask(client).startswith(b"HTTP/1.1 200")
        engine.counter("handshakes_failed_total", 3)
        assert b"x:y" not in recorder.received
