"""Slowness and floods: every phase has a timeout, and other clients are not affected. The node `brief` has short
limits."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.compliance.conftest import BRIEF
from tests.compliance.recorder import OK, Recorder
from tests.compliance.wire import SITE, dial, listen, request, say
from tests.e2e.cluster import Cluster, Node, until

HEAD_S = float(str(BRIEF["head_timeout_ms"])) / 1000
IDLE_S = float(str(BRIEF["idle_timeout_ms"])) / 1000
BODY_S = float(str(BRIEF["body_timeout_ms"])) / 1000
SLACK_S = 2.5
"""How much later than its timeout a connection may be closed on a busy machine."""


def ended(connection: socket.socket, timeout_s: float) -> tuple[bytes, float]:
    """(what came, seconds until the node closed). Fails when it doesn't."""
    talk = listen(connection, timeout_s)
    assert talk.closed, f"still open after {talk.seconds:.1f} s: {talk.raw[:200]}"
    return talk.raw, talk.seconds


def drip(connection: socket.socket, piece: bytes, pause_s: float, most_s: float) -> tuple[bytes, float]:
    """Sends a piece again and again until the node answers or closes; (what came, seconds until then)."""
    begin = time.monotonic()
    connection.settimeout(pause_s)
    while time.monotonic() - begin < most_s:
        with contextlib.suppress(ConnectionError):
            connection.sendall(piece)
        try:
            return connection.recv(65536), time.monotonic() - begin
        except TimeoutError:
            continue
        except ConnectionError:
            return b"", time.monotonic() - begin
    pytest.fail(f"still open after {most_s} s")


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: www.example\r\nX: "])
def test_a_head_that_does_not_end(brief: Node, recorder: Recorder, start: bytes) -> None:
    with dial(brief) as connection:
        connection.sendall(start)
        raw, seconds = ended(connection, max(HEAD_S, IDLE_S) + SLACK_S)
    assert seconds >= min(HEAD_S, IDLE_S) * 0.8
    assert raw == b"" or raw.startswith(b"HTTP/1.1 408")


def test_slowloris(brief: Node, recorder: Recorder) -> None:
    """A field every 100 ms: each is progress, the head as a whole is late."""
    with dial(brief) as connection:
        connection.sendall(request("/slowloris")[:-2])
        raw, seconds = drip(connection, b"X: y\r\n", 0.1, HEAD_S + SLACK_S)
    assert seconds >= HEAD_S * 0.8
    assert raw == b"" or raw.startswith(b"HTTP/1.1 408")
    assert b"/slowloris" not in recorder.received


def test_fifty_slowloris_do_not_stop_the_others(edge: Node, recorder: Recorder) -> None:
    """Half-sent heads on the node with the default limits; other clients are served meanwhile."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(dial(edge)).sendall(b"GET / HTTP/1.1\r\nHost: ")
        begin = time.monotonic()
        for number in range(20):
            assert say(edge, request(f"/alive-{number}", b"Connection: close")).statuses == [200]
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize("kind", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_body_that_stands_still(brief: Node, recorder: Recorder, kind: bytes) -> None:
    with dial(brief) as connection:
        connection.sendall(request("/standing", kind, method="POST", body=b"5\r\nhello\r\n"))
        raw, seconds = ended(connection, BODY_S + SLACK_S)
    assert seconds >= BODY_S * 0.8
    assert raw == b"" or raw.startswith(b"HTTP/1.1 408")
    assert not any(b"/standing" in item for item in recorder.completed)


def test_an_idle_connection_is_closed_silently(brief: Node) -> None:
    with dial(brief) as connection:
        connection.sendall(request("/idle"))
        assert listen(connection, 2.0, whole=1).statuses == [200]
        raw, seconds = ended(connection, IDLE_S + SLACK_S)
    assert seconds >= IDLE_S * 0.7
    assert raw == b"", "nobody asked for anything"


def test_a_client_that_reads_nothing(nodes: Cluster, brief: Node) -> None:
    """A big answer towards a client that has stopped reading: the endpoint's connection is given back in time."""
    with Recorder() as big:
        big.script = lambda request, number: b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000
        registration = nodes.register(brief, "big-1.0.0", "big.example", big.endpoint)
        nodes.reachable([brief], "http://big.example/", "big-1.0.0")
        with dial(brief) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: big.example\r\n\r\n")
            until("the endpoint's connection is closed", lambda: closed_by_node(big), BODY_S + SLACK_S + 2)
        registration.gone()


def closed_by_node(recorder: Recorder) -> bool:
    """The endpoint's sending has failed, or the end was read."""
    for upstream in recorder.sockets:
        with contextlib.suppress(OSError):
            if upstream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1:  # established
                return False
    return bool(recorder.connections)


def test_an_endpoint_that_does_not_answer_is_504(nodes: Cluster, brief: Node) -> None:
    with Recorder() as silent:

        def script(request: bytes, number: int) -> bytes | None:
            time.sleep(6)
            return OK

        silent.script = script
        registration = nodes.register(brief, "silent-1.0.0", "silent.example", silent.endpoint)
        nodes.reachable([brief], "http://silent.example/", "silent-1.0.0")
        begin = time.monotonic()
        talk = say(brief, b"GET / HTTP/1.1\r\nHost: silent.example\r\nConnection: close\r\n\r\n", quiet_s=5)
        assert talk.statuses == [504] and b"proxy-status" in talk.raw.lower()
        assert time.monotonic() - begin < 1.5 + SLACK_S
        registration.gone()


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_body_over_the_limit_is_413(brief: Node, recorder: Recorder, kind: str) -> None:
    size = int(str(BRIEF["body_bytes"])) + 1
    if kind == "length":
        pieces = [request("/over", b"Content-Length: %d" % size, b"Connection: close", method="POST")]
    else:
        head = request("/over", b"Transfer-Encoding: chunked", b"Connection: close", method="POST")
        pieces = [head, *[b"1000\r\n" + b"x" * 0x1000 + b"\r\n"] * 40, b"0\r\n\r\n"]
    talk = say(brief, *pieces)
    assert talk.statuses[:1] == [413] and talk.closed
    assert not any(b"/over" in item for item in recorder.completed)


def test_a_body_at_the_limit_passes(brief: Node) -> None:
    size = int(str(BRIEF["body_bytes"]))
    raw = request("/at", b"Content-Length: %d" % size, b"Connection: close", method="POST", body=b"x" * size)
    assert say(brief, raw).statuses == [200]


def test_too_many_connections_of_one_address(brief: Node, edge: Node) -> None:
    most = int(str(BRIEF["connections_per_address"]))
    served = 0
    with contextlib.ExitStack() as stack:
        for number in range(most + 15):
            connection = stack.enter_context(dial(brief))
            with contextlib.suppress(ConnectionError):
                connection.sendall(request(f"/many-{number}"))
                served += listen(connection, 0.5, whole=1).statuses == [200]
        assert served <= most
        assert served >= most - 5
    time.sleep(0.2)
    until("there is room again", lambda: say(brief, request("/again", b"Connection: close")).statuses == [200], 5)


def test_memory_stays_flat_under_broken_connections(edge: Node) -> None:
    from tests.e2e.test_http import engine_memory

    def storm() -> None:
        for number in range(300):
            with dial(edge) as connection:
                connection.sendall(request("/")[: number % 30 + 1] + b"x" * 2000)

    storm()
    before = engine_memory(edge)
    for _ in range(3):
        storm()
    assert engine_memory(edge) - before < 4 << 20
    assert say(edge, request("/", b"Connection: close")).statuses == [200], SITE
