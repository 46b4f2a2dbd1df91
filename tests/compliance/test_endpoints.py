"""What an endpoint answers wrongly never reaches another client, and its connection is never used again."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator

import pytest

from tests.compliance.recorder import OK, Recorder
from tests.compliance.wire import dial, listen, request, say
from tests.e2e.cluster import Cluster, Node, until

_numbers = itertools.count(1)
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.fixture
def rogue(nodes: Cluster, edge: Node) -> Iterator[tuple[str, Recorder]]:
    """A service with its own host name, whose endpoint can follow a script."""
    name = f"rogue{next(_numbers)}"
    with Recorder() as recorder:
        registration = nodes.register(edge, f"{name}-1.0.0", f"{name}.example", recorder.endpoint)
        nodes.reachable([edge], f"http://{name}.example/", f"{name}-1.0.0")
        yield f"Host: {name}.example\r\n", recorder
        registration.gone()


def ask(host: str, target: str, *fields: bytes, method: str = "GET", body: bytes = b"") -> bytes:
    raw = request(target, *fields, method=method, body=body)
    return raw.replace(b"Host: www.example\r\n", host.encode())


BAD_ANSWERS = {
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two different lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "NUL in a field": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "bare CR in a field": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "status of words": b"HTTP/1.1 fine OK\r\nContent-Length: 2\r\n\r\nok",
    "status 42": b"HTTP/1.1 042 OK\r\nContent-Length: 2\r\n\r\nok",
    "four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2 text": b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "101 that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    + EVIL,
    "a head that is too long": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_an_answer_that_cannot_be_trusted_is_502(rogue: tuple[str, Recorder], edge: Node, answer: bytes) -> None:
    host, recorder = rogue
    recorder.script = lambda request, number: answer if b"/bad" in request else OK
    talk = say(edge, ask(host, "/bad", b"Connection: close"))
    assert talk.statuses == [502], talk.raw[:300]
    assert b"proxy-status" in talk.raw.lower() and b"poison" not in talk.raw
    assert b"set-cookie" not in talk.raw.lower()
    until("its connection is closed", lambda: recorder.closed >= 1 or not recorder.connections, 5)
    assert say(edge, ask(host, "/good", b"Connection: close")).statuses[0] in (200, 503)  # 503: ejected for a moment
    assert all(b"/bad" not in bytes(seen) or b"/good" not in bytes(seen) for seen in recorder.connections)


MIXED = {
    "more body than promised": (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + EVIL),
    "a second answer at once": (b"GET", OK + EVIL),
    "an answer to HEAD with a body": (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n" + EVIL),
    "204 with a body": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL),
    "304 with a body": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 65\r\n\r\n" + EVIL),
    "bytes behind the last chunk": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + EVIL,
    ),
}


@pytest.mark.parametrize(("method", "answer"), MIXED.values(), ids=MIXED)
def test_surplus_bytes_reach_no_client(rogue: tuple[str, Recorder], edge: Node, method: bytes, answer: bytes) -> None:
    host, recorder = rogue
    recorder.script = lambda request, number: answer if b"/first" in request else OK
    first = say(edge, ask(host, "/first", b"Connection: close", method=method.decode()))
    assert b"poison" not in first.raw
    for number in range(4):
        talk = say(edge, ask(host, f"/next-{number}", b"Connection: close"))
        assert b"poison" not in talk.raw and talk.statuses in ([200], [503])
    assert all(b"/next" not in bytes(seen) for seen in recorder.connections if b"/first" in bytes(seen))


def test_an_answer_before_its_request_reaches_no_other_client(nodes: Cluster, edge: Node) -> None:
    """The endpoint answers as soon as a connection is made: this would poison a pool that kept the connection."""
    name = f"rogue{next(_numbers)}"
    with Recorder(greeting=EVIL) as recorder:
        registration = nodes.register(edge, f"{name}-1.0.0", f"{name}.example", recorder.endpoint)
        nodes.reachable([edge], f"http://{name}.example/", f"{name}-1.0.0")
        for number in range(6):
            talk = say(edge, ask(f"Host: {name}.example\r\n", f"/{number}", b"Connection: close"))
            assert talk.raw.count(b"HTTP/1.1 ") == 1
            # Only the second response shows that the first one was not to the request.
            until("every connection was answered", lambda: not recorder.owing)
            if talk.statuses == [200]:  # at most for the request whose connection it came on
                assert b"poison" in talk.raw or b"ok" in talk.raw
        assert all(bytes(seen).count(b"GET ") <= 1 for seen in recorder.connections), "a poisoned connection was reused"
        registration.gone()


def test_a_pooled_connection_that_speaks_up_is_dropped(rogue: tuple[str, Recorder], edge: Node) -> None:
    host, recorder = rogue
    assert say(edge, ask(host, "/one", b"Connection: close")).statuses == [200]
    for connection in list(recorder.sockets):
        connection.sendall(EVIL)
    time.sleep(0.3)
    for number in range(3):
        talk = say(edge, ask(host, f"/two-{number}", b"Connection: close"))
        assert talk.statuses == [200] and b"poison" not in talk.raw


def test_an_answer_cut_short_is_cut_short_for_the_client(rogue: tuple[str, Recorder], edge: Node) -> None:
    """Neither ended as if it were whole nor filled up with anything."""
    host, recorder = rogue

    def script(request: bytes, number: int) -> bytes | None:
        recorder.script = lambda request, number: None
        return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"

    recorder.script = script
    with dial(edge) as connection:
        connection.sendall(ask(host, "/a"))
        time.sleep(0.2)
        for upstream in list(recorder.sockets):
            upstream.shutdown(socket.SHUT_RDWR)
        connection.sendall(ask(host, "/b"))
        talk = listen(connection, 3.0)
    assert talk.closed and talk.statuses[:1] in ([200], [502])
    if talk.statuses[0] == 200:
        assert talk.raw.endswith(b"half") and len(talk.statuses) == 1


def test_an_early_answer_ends_the_upload_and_the_connections(rogue: tuple[str, Recorder], edge: Node) -> None:
    host, recorder = rogue
    early = b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nmuch"
    recorder.script = lambda request, number: OK
    seen: list[bytes] = []

    def serve_early() -> None:  # answers on the head alone
        until("the head has arrived", lambda: b"/early" in recorder.received)
        for upstream in list(recorder.sockets):
            upstream.sendall(early)

    with dial(edge) as connection:
        connection.sendall(ask(host, "/early", b"Content-Length: 1000000", method="POST"))
        connection.sendall(b"x" * 1000)
        serve_early()
        talk = listen(connection, 2.0, whole=1)
        assert talk.statuses == [413]
        try:
            connection.sendall(b"GET /smuggled HTTP/1.1\r\n" + host.encode() + b"\r\n")
            seen.append(listen(connection, 2.0).raw)
        except ConnectionError:
            pass
    assert not any(b"HTTP/1.1 200" in raw for raw in seen)
    assert say(edge, ask(host, "/after", b"Connection: close")).statuses in ([200], [503])
    assert all(b"/after" not in bytes(item) for item in recorder.connections if b"/early" in bytes(item))
    assert not any(item.startswith(b"GET /smuggled") for item in recorder.completed)


def test_bytes_behind_an_upgrade_that_is_refused_go_nowhere(rogue: tuple[str, Recorder], edge: Node) -> None:
    host, recorder = rogue
    recorder.script = lambda request, number: OK  # no 101
    talk = say(edge, ask(host, "/socket", *UPGRADE) + ask(host, "/smuggled"))
    assert talk.statuses[0] == 200 and talk.closed
    assert len(talk.statuses) == 1 and b"/smuggled" not in recorder.received


def test_bytes_behind_an_upgrade_wait_for_the_101(rogue: tuple[str, Recorder], edge: Node) -> None:
    host, recorder = rogue
    early: list[bytes] = []

    def script(request: bytes, number: int) -> bytes | None:
        time.sleep(0.3)
        early.append(recorder.received)
        return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nFROM-ENDPOINT"

    recorder.script = script
    with dial(edge) as connection:
        connection.sendall(ask(host, "/socket", *UPGRADE) + b"FROM-CLIENT")
        talk = listen(connection, 1.5)
        assert talk.statuses == [101] and talk.raw.endswith(b"FROM-ENDPOINT")
        assert b"FROM-CLIENT" not in early[0], "forwarded before the endpoint had agreed"
        until("the bytes have come through", lambda: b"FROM-CLIENT" in recorder.received, 3)


def test_a_switch_to_another_protocol_than_requested_is_refused(rogue: tuple[str, Recorder], edge: Node) -> None:
    host, recorder = rogue
    recorder.script = lambda request, number: (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: smtp\r\n\r\n"
    )
    talk = say(edge, ask(host, "/socket", *UPGRADE))
    assert talk.statuses == [502] and talk.closed


def test_h2c_is_never_upgraded(rogue: tuple[str, Recorder], edge: Node) -> None:
    host, recorder = rogue
    fields = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    with dial(edge) as connection:
        connection.sendall(ask(host, "/h2c", *fields))
        talk = listen(connection, 2.0, whole=1)
    assert talk.statuses[0] in (200, 400)
    seen = recorder.received.lower()
    assert b"upgrade:" not in seen and b"http2-settings:" not in seen


def test_interim_answers_pass_and_are_bounded(rogue: tuple[str, Recorder], edge: Node) -> None:
    host, recorder = rogue
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    recorder.script = lambda request, number: hint + OK
    talk = say(edge, ask(host, "/hint", b"Connection: close"))
    assert talk.statuses == [200] and talk.raw.endswith(b"ok")
    recorder.script = lambda request, number: hint * 100_000 + OK
    talk = say(edge, ask(host, "/flood", b"Connection: close"))
    assert talk.statuses in ([502], []) and talk.raw.count(b"103 ") < 1000
