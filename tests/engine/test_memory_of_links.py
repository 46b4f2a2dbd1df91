"""The link of a parent carries many clients: when memory is short, those of its streams that hold most end, and nothing else of it."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sdlb.wire.engine_pb2 import Identity, Limits, Listener
from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine import frames
from tests.engine.certificates import Authority
from tests.engine.engine import Engine, until
from tests.engine.hungry import PATIENT_S, largest

pytestmark = [needs_openssl, pytest.mark.usefixtures("many_files")]

LIMIT_MB = 128
LIMIT = LIMIT_MB << 20
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE, tls=True)
LIMITS = Limits(memory_mb=LIMIT_MB, body_timeout_ms=60_000)
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + bytes(4_000_000)
HUNGRY = range(1001, 1481, 2)
"""Streams that request much data and read only the first 64 KiB."""


@pytest.fixture
def host(authority: Authority) -> Iterator[Engine]:
    identity = Identity(pem=authority.node("host-1").pem, ca_pem=authority.root.certificate.read_bytes())
    with Engine([NODE], name="host-1", identity=identity, limits=LIMITS, workers=1) as host:
        yield host


def link(host: Engine, authority: Authority, stack: ExitStack) -> frames.Client:
    """As a parent opens one: its whole window is open, that of each stream is as it is by default."""
    pair = authority.node("edge-1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.root.certificate)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["sdlb/1"])
    plain = socket.create_connection(host.address["node"], timeout=PATIENT_S)
    client = stack.enter_context(frames.Client(context.wrap_socket(plain, server_hostname="host-1")))
    client.send(frames.frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 65_536)))
    return client


def stamped(service: str, method: str = "GET") -> list[frames.Field]:
    return [*frames.request(f"{service}.example", method=method), ("sdlb-to", f"{service}/1.0.0 {service}.example/*")]


def test_those_of_its_streams_that_hold_most_end(host: Engine, authority: Authority, recorder: Recorder) -> None:
    with Recorder(lambda _request, _number: LARGE) as large, ExitStack() as stack:
        host.serve("good.example/*", recorder.endpoint, service="good")
        host.serve("large.example/*", large.endpoint, service="large")
        links = [link(host, authority, stack) for _ in range(2)]
        # An upload on each that is slow, and goes on when it is over.
        for each in links:
            each.send(each.headers(1, stamped("good", "POST"), frames.END_HEADERS))
            each.send(frames.frame(frames.DATA, 0, 1, b"a" * 1_000))
        for stream in HUNGRY:
            for each in links:
                each.send(each.headers(stream, stamped("large")))
        answered, end = 0, time.monotonic() + PATIENT_S
        numbers = iter(range(2001, 100_001, 2))
        while host.counters.get("memory_ended_total", 0) == 0 or answered < 50:
            assert time.monotonic() < end, "somebody has to go"
            stream = next(numbers)
            for each in links:
                assert each.ask(stream, stamped("good")) == "200"
            answered += 1
        for each in links:
            each.send(frames.frame(frames.DATA, frames.END_STREAM, 1, b"b" * 1_000))
            assert each.outcome(1) == "200"
            assert 0 not in each.heard, "the link goes on"
        assert 0 < sum(map(broken, links)) < len(links) * len(HUNGRY), "who is not in the way stays"
        at_most = largest(host)
    assert at_most <= LIMIT, f"{at_most >> 20} MiB"
    assert at_most > LIMIT // 2, "that was no attack"
    assert host.counters.get("faults_total", 0) == host.counters.get("memory_told_to_go_total", 0) == 0
    until(lambda: host.counters["memory_held_bytes"] < LIMIT // 4, "what was held is given back", PATIENT_S)


def broken(client: frames.Client) -> int:
    return sum(any(said.startswith(("reset", "503")) for said in client.heard.get(stream, [])) for stream in HUNGRY)
