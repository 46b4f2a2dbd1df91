"""HTTP/1.0 without a host, as the health checks of other balancers and many monitors send it."""

from __future__ import annotations

import socket

import pytest

from sdlb.wire.engine_pb2 import Listener, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine
from tests.engine.http1 import status
from tests.engine.test_client_certificates import connect

HTTP = Listener(key="http", address="127.0.0.1:0")
HTTPS = Listener(key="https", address="127.0.0.1:0", tls=True)
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)


def ask(address: tuple[str, int], head: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(head + b"\r\n\r\n")
        return b"%d" % status(client)


def test_it_gets_what_every_host_gets(recorder: Recorder) -> None:
    with Engine([HTTP], workers=1) as engine, Recorder() as other:
        engine.serve("a.example/*", other.endpoint, service="a")
        assert ask(engine.address["http"], b"OPTIONS / HTTP/1.0") == b"421"
        engine.serve("*", recorder.endpoint)
        for head in (b"OPTIONS / HTTP/1.0", b"GET /health HTTP/1.0\r\nConnection: keep-alive"):
            assert ask(engine.address["http"], head) == b"200"
        host, port = engine.address["http"]
        assert f"\r\nhost: {host}:{port}\r\n".encode() in recorder.completed[-1]
        assert ask(engine.address["http"], b"GET http://a.example/ HTTP/1.0") == b"200"
        assert len(other.completed) == 1


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1", b"GET / HTTP/1.0\r\nHost: ", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a"]
)
def test_what_is_refused_still(recorder: Recorder, head: bytes) -> None:
    with Engine([HTTP], workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        assert ask(engine.address["http"], head) == b"400"


def test_nodes_below_get_a_host(recorder: Recorder) -> None:
    with Engine([NODE], name="child", workers=1) as child, Engine([HTTP], workers=1) as engine:
        child.serve("*", recorder.endpoint)
        engine.serve("*", "{}:{}".format(*child.address["node"]), node="child")
        assert ask(engine.address["http"], b"GET / HTTP/1.0") == b"200"
        assert ask(child.address["node"], b"GET / HTTP/1.0\r\nsdlb-to: web/1.0.0 *") == b"400"


@needs_openssl
def test_over_tls_it_is_the_host_of_the_handshake(recorder: Recorder, authority: Authority) -> None:
    with Engine([HTTPS], workers=1) as engine:
        engine.serve("a.example/*", recorder.endpoint)
        message = ToEngine()
        message.sites.put.add(key="a", hosts=["a.example"]).certificates.add(pem=authority.issue("a.example").pem)
        engine.sites(message)
        with connect(engine, authority, "a.example") as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert status(connection) == 200
        assert b"\r\nhost: a.example\r\n" in recorder.completed[-1]
