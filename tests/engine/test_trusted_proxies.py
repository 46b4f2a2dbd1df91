"""A proxy in front of an entry: its word about clients is believed where the listener trusts it, and nowhere else."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator

import pytest

from sdlb.wire.engine_pb2 import Limits, Listener, Site, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine, until
from tests.engine.http1 import status

LOCAL = ["127.0.0.0/8", "10.0.0.0/8"]
LISTENERS = [
    Listener(key="http", address="127.0.0.1:0", public=True, trusted_proxies=LOCAL),
    Listener(key="other", address="127.0.0.1:0", public=True, trusted_proxies=["192.0.2.0/24"]),
]
V1 = b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([198, 51, 100, 7, 127, 0, 0, 1]) + struct.pack(">HH", 4711, 80)
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"


@pytest.fixture(scope="module")
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine(LISTENERS, workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def ask(engine: Engine, before: bytes = b"", *fields: str, key: str = "http", pieces: bool = False) -> int:
    head = "".join(f"{field}\r\n" for field in fields)
    raw = before + f"GET / HTTP/1.1\r\nHost: a.example\r\n{head}\r\n".encode()
    with socket.create_connection(engine.address[key], timeout=10) as client:
        for piece in [raw[at : at + 5] for at in range(0, len(raw), 5)] if pieces else [raw]:
            client.sendall(piece)
        try:
            return status(client)
        except ConnectionResetError:
            return 0


def told(recorder: Recorder) -> dict[str, list[str]]:
    """The forwarding fields of the last request."""
    lines = recorder.completed[-1].decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if "forwarded" in name or name == "x-real-ip":
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("header", [V1, V2], ids=["version 1", "version 2"])
@pytest.mark.parametrize("pieces", [False, True])
def test_the_proxy_protocol_names_the_client(engine: Engine, recorder: Recorder, header: bytes, pieces: bool) -> None:
    assert ask(engine, header, pieces=pieces) == 200
    assert told(recorder)["x-forwarded-for"] == ["198.51.100.7"]
    until(lambda: '"198.51.100.7"' in engine.access_log.read_text(), "it stands in the log")


def test_a_client_that_it_names_is_believed_no_further(engine: Engine, recorder: Recorder) -> None:
    assert ask(engine, V1, "X-Forwarded-For: 203.0.113.1", "X-Forwarded-Proto: https") == 200
    fields = told(recorder)
    assert fields["x-forwarded-for"] == ["198.51.100.7"] and fields["x-forwarded-proto"] == ["http"]


def test_its_own_checks_are_its_own(engine: Engine, recorder: Recorder) -> None:
    for header in (V2_LOCAL, b"PROXY UNKNOWN\r\n", b""):
        assert ask(engine, header) == 200
        assert told(recorder)["x-forwarded-for"] == ["127.0.0.1"]


def test_forwarding_fields_name_the_client(engine: Engine, recorder: Recorder) -> None:
    assert ask(engine, b"", "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.0.0.2", "X-Forwarded-Proto: HTTPS") == 200
    fields = told(recorder)
    assert fields["x-forwarded-for"] == fields["x-real-ip"] == ["203.0.113.9"]
    assert fields["x-forwarded-proto"] == ["https"]
    assert fields["forwarded"] == ["for=203.0.113.9;host=a.example;proto=https"]


@pytest.mark.parametrize("field", ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"])
def test_others_are_not_believed(engine: Engine, recorder: Recorder, field: str) -> None:
    before = engine.counters.get("forged_fields_total", 0)
    assert ask(engine, b"", field, key="other") == 200
    fields = told(recorder)
    assert fields["x-forwarded-for"] == ["127.0.0.1"] and fields["x-forwarded-proto"] == ["http"]
    engine.counter("forged_fields_total", before + 1)


def test_a_header_from_an_untrusted_address_is_not_a_request(engine: Engine, recorder: Recorder) -> None:
    seen = len(recorder.completed)
    for header in (V1, V2, b"PROXY TCP4 nonsense\r\n"):
        assert ask(engine, header, key="other") in (400, 0)
    assert ask(engine, b"PROXY TCP4 nonsense\r\n") == 0, "nor is a broken one of a proxy"
    assert len(recorder.completed) == seen


def test_limits_are_those_of_the_client(recorder: Recorder) -> None:
    limits = Limits(requests_per_s_per_address=1, requests_burst_per_address=2, connections_per_address=3)
    with Engine(LISTENERS, workers=1, limits=limits) as engine:
        engine.serve("*", recorder.endpoint)
        for number in range(8):
            assert ask(engine, b"", f"X-Forwarded-For: 203.0.113.{number}") == 200
        assert [ask(engine, b"", "X-Forwarded-For: 203.0.113.1") for _ in range(3)].count(429) >= 1
        held = [socket.create_connection(engine.address["http"], timeout=10) for _ in range(8)]
        for connection in held:
            connection.sendall(V1)
        until(
            lambda: engine.counters.get("limit_connections_per_address_total", 0) >= 5,
            "five are too many of one client",
        )
        assert ask(engine, b"", "X-Forwarded-For: 203.0.113.77") == 200, "the proxy itself has no such limit"
        for connection in held:
            connection.close()


@needs_openssl
def test_over_tls_the_header_stands_before_the_handshake(recorder: Recorder, authority: Authority) -> None:
    listener = Listener(key="https", address="127.0.0.1:0", public=True, tls=True, trusted_proxies=LOCAL)
    with Engine([], workers=1) as engine:
        message = ToEngine()
        leaf = authority.issue("a.example")
        message.sites.put.append(Site(key="a", hosts=["a.example"]))
        message.sites.put[0].certificates.add(pem=leaf.pem)
        assert not engine.sites(message).sites[0].error
        engine.configure([listener])
        engine.serve("*", recorder.endpoint)
        context = ssl.create_default_context(cafile=str(authority.root.certificate))
        with socket.create_connection(engine.address["https"], timeout=10) as raw:
            raw.sendall(V2)
            with context.wrap_socket(raw, server_hostname="a.example") as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
                assert status(client) == 200
        fields = told(recorder)
        assert fields["x-forwarded-for"] == ["198.51.100.7"] and fields["x-forwarded-proto"] == ["https"]


def test_an_invalid_network_is_refused(engine: Engine) -> None:
    bad = Listener(key="bad", address="127.0.0.1:0", trusted_proxies=["10.0.0.0/64"])
    assert "trusted proxy" in engine.try_configure([*LISTENERS, bad]).error
    assert ask(engine) == 200, "the other listeners go on"
