"""What other software sends or expects, by the letter of the RFCs."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sdlb.wire.engine_pb2 import Listener, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import OK, Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine
from tests.engine.fixtures import recording
from tests.engine.frames import Client, request
from tests.engine.http1 import status
from tests.engine.test_client_certificates import connect

LISTENERS = [
    Listener(key="http", address="127.0.0.1:0", public=True),
    Listener(key="https", address="127.0.0.1:0", tls=True),
]
recorder = recording("module")


@pytest.fixture(scope="module")
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine(LISTENERS, workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


def ask(engine: Engine, start: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """The whole answer."""
    with socket.create_connection(engine.address["http"], timeout=10) as client:
        lines = [start, b"Host: a.example", b"Connection: close", *fields, b"", body]
        client.sendall(b"\r\n".join(lines))
        got = b""
        while piece := client.recv(65_536):
            got += piece
        return got


def forwarded(recorder: Recorder) -> bytes:
    return recorder.completed[-1].lower()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_no_content_has_a_length_too(engine: Engine, recorder: Recorder, method: str) -> None:
    """Servers answer 411 without one; over HTTP/2 there is none to pass on."""
    with Client(engine.address["http"]) as client:
        assert client.ask(1, request(method=method)) == "200"
        assert forwarded(recorder).count(b"\r\ncontent-length: 0\r\n") == 1
    assert ask(engine, f"{method} / HTTP/1.1".encode())[9:12] == b"200"
    assert forwarded(recorder).count(b"\r\ncontent-length: 0\r\n") == 1
    ask(engine, f"{method} / HTTP/1.1".encode(), b"Content-Length: 2", body=b"hi")
    assert forwarded(recorder).count(b"content-length") == 1


def test_a_get_has_none(engine: Engine, recorder: Recorder) -> None:
    assert ask(engine, b"GET / HTTP/1.1")[9:12] == b"200"
    assert b"content-length" not in forwarded(recorder)


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
def test_max_forwards(engine: Engine, recorder: Recorder, method: str) -> None:
    start = f"{method} /x HTTP/1.1".encode()
    before = len(recorder.completed)
    assert ask(engine, start, b"Max-Forwards: 0")[9:12] == (b"405" if method == "TRACE" else b"204")
    for wrong in (b"-1", b"x", b"", b"1, 2"):
        assert ask(engine, start, b"Max-Forwards: " + wrong)[9:12] == b"400"
    assert ask(engine, start, b"Max-Forwards: 1", b"Max-Forwards: 1")[9:12] == b"400"
    assert len(recorder.completed) == before
    for told, left in ((b"7", b"6"), (b"99999999999", b"4294967294")):
        assert ask(engine, start, b"Max-Forwards: " + told)[9:12] == b"200"
        assert forwarded(recorder).count(b"max-forwards") == 1
        assert b"\r\nmax-forwards: " + left + b"\r\n" in forwarded(recorder)
    assert ask(engine, b"GET / HTTP/1.1", b"Max-Forwards: 0")[9:12] == b"200"
    assert b"\r\nmax-forwards: 0\r\n" in forwarded(recorder)


@needs_openssl
def test_the_absolute_form_of_https_is_for_tls(engine: Engine, recorder: Recorder, authority: Authority) -> None:
    message = ToEngine()
    message.sites.put.add(key="a", hosts=["a.example"]).certificates.add(pem=authority.issue("a.example").pem)
    engine.sites(message)
    for scheme in (b"https", b"HTTPS", b"http"):
        with connect(engine, authority, "a.example") as connection:
            connection.sendall(b"GET " + scheme + b"://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert status(connection) == 200
            assert recorder.completed[-1].startswith(b"GET /x?y HTTP/1.1\r\n")
    assert ask(engine, b"GET https://a.example/ HTTP/1.1")[9:12] == b"400"
    assert ask(engine, b"GET http://a.example/ HTTP/1.1")[9:12] == b"200"


def test_426_names_the_protocol(engine: Engine, recorder: Recorder) -> None:
    recorder.script = lambda _request, _number: (
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    )
    answer = ask(engine, b"GET / HTTP/1.1").lower()
    assert b"\r\nupgrade: websocket\r\n" in answer and b"\r\nconnection: upgrade, close\r\n" in answer
    with Client(engine.address["http"]) as client:
        assert client.ask(1, request()) == "426"
    recorder.script = lambda _request, _number: OK.replace(b"\r\n", b"\r\nUpgrade: h2c\r\nConnection: upgrade\r\n", 1)
    assert b"upgrade" not in ask(engine, b"GET / HTTP/1.1").lower()
    recorder.script = None


ALIASES = [b"X_Forwarded_For", b"X.Forwarded.For", b"x!real~ip", b"X-Forwarded.Proto", b"content_length"]


@pytest.mark.parametrize("name", ALIASES)
def test_aliases_of_fields_that_are_ours(engine: Engine, recorder: Recorder, name: bytes) -> None:
    assert ask(engine, b"GET / HTTP/1.1", name + b": 6.6.6.6", b"X.Mine: kept")[9:12] == b"200"
    assert b"x.mine: kept" in forwarded(recorder)
    assert b"6.6.6.6" not in forwarded(recorder)
    body = b"2\r\nhi\r\n0\r\n" + name + b": 6.6.6.6\r\nX.Mine: kept\r\n\r\n"
    assert ask(engine, b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", body=body)[9:12] == b"200"
    assert b"x.mine: kept" in forwarded(recorder)
    assert b"6.6.6.6" not in forwarded(recorder)
